//! Logs and metrics. Metric names are those of `docs/metrics.md`; no label carries an id.
