"""Which metrics every step of a run logs, whatever its batch holds."""

from sspo_verl.metrics.names import METRICS

# Of a band of entropy, a length or an update that a batch may not have; of thresholds that a run may not look for.
OPTIONAL = ("/band_", "clipfrac_by_length/", "clipfrac_by_update/", "entropy_threshold/")


def always_logged(algorithm: str) -> set[str]:
    """The names of a step's metrics, with diagnostics: SSPO alone warns."""
    optional = OPTIONAL if algorithm.startswith("sspo") else (*OPTIONAL, "/warning/")
    return {name for name in METRICS if not any(part in name for part in optional)}
