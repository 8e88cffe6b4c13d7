"""FP32 to INT8 or FP8: which layers, over which ranges, smoothed, as explicit Q/DQ."""

from sam_deploy.precision.quantize.grids import FP8, INT8, INT8_BY_UINT8, UINT8, Grid
from sam_deploy.precision.quantize.layers import Layer, weighted_layers
from sam_deploy.precision.quantize.observe import (
    channel_maxima,
    observe,
    write_channels,
    write_observed,
)
from sam_deploy.precision.quantize.places import Places, places_of
from sam_deploy.precision.quantize.policy import is_below, layers_to_quantize
from sam_deploy.precision.quantize.qdq import insert_qdq
from sam_deploy.precision.quantize.qdq_around import insert_qdq_around, least_scale
from sam_deploy.precision.quantize.smoothing import smooth, smoothable
from sam_deploy.precision.quantize.spans import Span, span
from sam_deploy.precision.quantize.weights import QuantizedWeight, quantized_weight

__all__ = [
    "FP8",
    "INT8",
    "INT8_BY_UINT8",
    "UINT8",
    "Grid",
    "Layer",
    "Places",
    "QuantizedWeight",
    "Span",
    "channel_maxima",
    "insert_qdq",
    "insert_qdq_around",
    "is_below",
    "layers_to_quantize",
    "least_scale",
    "observe",
    "places_of",
    "quantized_weight",
    "smooth",
    "smoothable",
    "span",
    "weighted_layers",
    "write_channels",
    "write_observed",
]
