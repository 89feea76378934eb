"""A cache backend of vLLM-Omni that runs a schedule's whole steps. Written for vLLM-Omni 0.30.0.

    vllm serve MODEL --omni --cache-backend ecad --cache-config '{"schedule": "front.json", "speedup": 2.0}'

Which steps run is known before a request begins, so all ranks of a parallel run skip the same ones.
"""
