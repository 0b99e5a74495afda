"""What attribution asks of a feature basis: circuit-tracer's transcoder interface, spelled out.

Neurons implement it here; circuit-tracer's per-layer and cross-layer transcoders do as they are.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class FeatureBasis(Protocol):
    """A set of features that read the residual stream at one hook and write at another.

    ``feature_input_hook`` is ``hook_resid_mid`` (the residual stream before the MLP),
    ``ln2.hook_normalized`` (that, divided by its root mean square) or ``mlp.hook_in`` (that, times
    the norm's weight). ``feature_output_hook`` is what the MLP adds to the residual stream.
    """

    @property
    def feature_input_hook(self) -> str: ...

    @property
    def feature_output_hook(self) -> str: ...

    @property
    def skip_connection(self) -> bool: ...

    def compute_attribution_components(
        self, mlp_inputs: Tensor, zero_positions: slice, /
    ) -> dict[str, Tensor]:
        """Active features and their vectors, for inputs ``[n_layers, n_positions, d_model]``.

        Returns:
            ``activation_matrix``, sparse ``[n_layers, n_positions, n_units]``; ``encoder_vecs``
            ``[n_features, d_model]``; ``decoder_vecs``, times the activations
            ``[n_decoders, d_model]``; ``decoder_locations``, layer and position
            ``[2, n_decoders]``; ``encoder_to_decoder_map``, the feature of each decoder
            ``[n_decoders]``; ``reconstruction`` ``[n_layers, n_positions, d_model]``.
        """
        ...

    def compute_skip(self, layer_id: int, inputs: Tensor, /) -> Tensor:
        """The skip connection's linear map of inputs ``[n, d_model]``; only where there is one."""
        ...
