"""The one place that names the metrics."""

from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as it is exposed. One whose name ends in `_total` counts from the start of the process."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ()

    def family(self) -> CounterMetricFamily | GaugeMetricFamily:
        """Without samples yet."""
        kind = CounterMetricFamily if self.name.endswith("_total") else GaugeMetricFamily
        return kind(self.name, self.meaning, labels=self.labels)


# What the jobs of this process do.
RUNNING = Metric("enrich_running", "1 while a job is under way in this process")
PHOTOS = Metric("enrich_photos_total", "Photos: fetched, unchanged, cached, or why they failed", ("status",))
SCORED = Metric("enrich_photos_scored_total", "Photos that went through the model")
BYTES = Metric("enrich_photo_bytes_total", "Bytes of photos read from their hosts")
SPEED = Metric("enrich_photos_per_second", "Photos per second of the job under way, or of the last one")
PLACES = Metric("enrich_batch_places_total", "Places for photos in the batches that were scored")
STAGE_SECONDS = Metric("enrich_stage_seconds_total", "Seconds of work, summed over parallel work", ("stage",))
QUEUES = Metric("enrich_stage_queue", "Photos (save: listings) waiting for a stage or in it", ("stage",))
LISTINGS = Metric("enrich_listings_total", "Listings enriched, of these to retry, quarantined", ("outcome",))
LEASES_LOST = Metric("enrich_leases_lost_total", "Results thrown away: another worker had the listing")
ANSWERS = Metric("enrich_index_answers_total", "Answers per document; calls with no answer", ("status",))

# How things stand, from the database.
READABLE = Metric("enrich_state_readable", "1 where the database could be asked for what follows, else 0")
STATE = Metric("enrich_state_listings", "Listings by status", ("status",))
LAG = Metric("enrich_oldest_waiting_seconds", "How long the listing that waits longest has waited, else 0")
OUTBOX = Metric("enrich_outbox_documents", "Documents lacking: waiting, awaiting, refused", ("status",))
SUCCESS = Metric(
    "enrich_last_success_timestamp_seconds", "When a job last ended with 0 or 1; no run --ids", ("kind",)
)
NIGHT = Metric("enrich_night", "Shares, mean confidences and failures of the last night", ("figure",))
USUAL = Metric("enrich_night_usual", "The same as the mean of the nights before", ("figure",))
DRIFTED = Metric("enrich_night_drifted", "1 where the last night is beyond ENRICH_MAX_DRIFT", ("figure",))

METRICS = tuple(each for each in vars().copy().values() if isinstance(each, Metric))
