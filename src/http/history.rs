//! The last hour of every queue, in memory: what `GET /queue/history` answers.
//!
//! A start begins it anew. Its size is bounded by the providers: one reading of each, four times a
//! minute, for an hour.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use schemars::JsonSchema;
use serde::Serialize;

use super::Api;
use super::openapi::strings;
use super::params::Params;
use super::problem::Problem;
use super::read::depths;
use super::view::Stamp;
use crate::core::provider::ProviderName;
use crate::core::time::Time;
use crate::queue::Depth;

/// Between two samples.
const INTERVAL: Duration = Duration::from_secs(15);
/// How many samples are kept: those of an hour.
const SAMPLES_COUNT_MAX: usize = 240;

/// The samples of the last hour, oldest first.
#[derive(Debug, Default)]
pub struct History(Mutex<VecDeque<Sample>>);

/// All queues at one time.
#[derive(Debug)]
struct Sample {
    at: Time,
    queues: BTreeMap<ProviderName, Reading>,
}

/// One queue at one time.
#[derive(Clone, Copy, Debug)]
struct Reading {
    depth: usize,
    parked: usize,
    oldest_age: Duration,
}

impl Sample {
    fn of(at: Time, depths: impl IntoIterator<Item = (ProviderName, Depth)>) -> Self {
        let reading = |depth: &Depth| Reading {
            depth: depth.depth,
            parked: depth.parked,
            oldest_age: depth.oldest_accepted_at.map(|time| at.since(time)).unwrap_or_default(),
        };
        let queues = depths.into_iter().map(|(name, depth)| (name, reading(&depth))).collect();
        Self { at, queues }
    }
}

impl History {
    fn add(&self, sample: Sample) {
        let mut samples = self.lock();
        if samples.len() == SAMPLES_COUNT_MAX {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// What is kept, and `last` behind it.
    fn view(&self, last: &Sample) -> HistoryView {
        let kept = self.lock();
        let samples = || kept.iter().chain([last]);
        let names = samples().flat_map(|sample| sample.queues.keys());
        let mut providers: BTreeMap<ProviderName, ProviderHistory> =
            names.map(|name| (name.clone(), ProviderHistory::of(name))).collect();
        for sample in samples() {
            for (name, history) in &mut providers {
                history.push(sample.queues.get(name));
            }
        }
        HistoryView {
            interval_seconds: INTERVAL.as_secs(),
            at: samples().map(|sample| Stamp(sample.at)).collect(),
            providers: providers.into_values().collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds a sample now and at every interval, for ever.
pub async fn keep(api: &Api) {
    at_every_interval(async || {
        api.history.add(Sample::of(api.clock.now(), depths(api)));
    })
    .await;
}

async fn at_every_interval(mut take: impl AsyncFnMut()) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        take().await;
    }
}

/// The queues of all providers over the last hour, or since the start.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "QueueHistory")]
pub(super) struct HistoryView {
    /// Between two samples.
    interval_seconds: u64,
    /// When each sample was taken, oldest first; the last one is of now.
    at: Vec<Stamp>,
    /// By name.
    providers: Vec<ProviderHistory>,
}

/// One queue over the last hour: a value for each sample, null where the provider was not known.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProviderHistory {
    /// Of the provider.
    #[schemars(with = "strings::Name")]
    name: String,
    /// How many jobs it had, parked ones included.
    depth: Vec<Option<usize>>,
    /// How many of them were parked.
    parked: Vec<Option<usize>>,
    /// How long ago the oldest of them was taken in; 0 when there was none.
    oldest_seconds: Vec<Option<u64>>,
}

impl ProviderHistory {
    fn of(name: &ProviderName) -> Self {
        let (depth, parked, oldest_seconds) = (Vec::new(), Vec::new(), Vec::new());
        Self { name: name.to_string(), depth, parked, oldest_seconds }
    }

    fn push(&mut self, reading: Option<&Reading>) {
        self.depth.push(reading.map(|reading| reading.depth));
        self.parked.push(reading.map(|reading| reading.parked));
        self.oldest_seconds.push(reading.map(|reading| reading.oldest_age.as_secs()));
    }
}

/// The last hour of every queue.
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    uri: Uri,
) -> Result<Json<HistoryView>, Problem> {
    Params::of(&uri, &[])?;
    Ok(Json(api.history.view(&Sample::of(api.clock.now(), depths(&api)))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn depth(name: &str, depth: usize, accepted_at: u64) -> (ProviderName, Depth) {
        let name = ProviderName::new(name).expect("a name");
        let oldest_accepted_at = Some(Time(accepted_at));
        (name, Depth { depth, parked: 1, oldest_accepted_at, ..Depth::default() })
    }

    #[test]
    fn a_provider_has_a_value_for_each_sample_and_null_where_it_was_not_known() {
        let history = History::default();
        history.add(Sample::of(Time(10_000), [depth("a", 3, 4_000)]));
        let last = Sample::of(Time(25_000), [depth("a", 2, 4_000), depth("b", 7, 24_500)]);
        let shown = serde_json::to_value(history.view(&last)).expect("JSON");
        let expected = json!({
            "at": ["1970-01-01T00:00:10.000Z", "1970-01-01T00:00:25.000Z"],
            "intervalSeconds": 15,
            "providers": [
                {"name": "a", "depth": [3, 2], "oldestSeconds": [6, 21], "parked": [1, 1]},
                {"name": "b", "depth": [null, 7], "oldestSeconds": [null, 0], "parked": [null, 1]},
            ],
        });
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_is_older_than_an_hour_goes_and_with_it_providers_that_are_gone() {
        let history = History::default();
        history.add(Sample::of(Time(0), [depth("gone", 1, 0)]));
        let minutes = 1..=u64::try_from(SAMPLES_COUNT_MAX).expect("few") / 4;
        for time in minutes.flat_map(|minute| [60, 45, 30, 15].map(|s| minute * 60 - s)) {
            history.add(Sample::of(Time(1000 * time), [depth("a", 1, 0)]));
        }
        let view = history.view(&Sample::of(Time(3_600_000), []));
        assert_eq!((view.at.len(), view.providers.len()), (SAMPLES_COUNT_MAX + 1, 1));
        assert_eq!(view.providers[0].depth.first(), Some(&Some(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sample_is_taken_at_once_and_then_at_every_interval() {
        let history = History::default();
        let take = async || history.add(Sample::of(Time(0), []));
        let hour = Duration::from_secs(60 * 60);
        assert!(tokio::time::timeout(hour, at_every_interval(take)).await.is_err());
        assert_eq!(history.lock().len(), SAMPLES_COUNT_MAX, "and no more than an hour of them");
    }
}
