//! Query parameters: each known one at most once, nothing else.

use std::borrow::Cow;
use std::str::FromStr;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query};
use axum::http::Uri;

use super::problem::Problem;
use crate::core::job::{DeadReason, JobId};
use crate::core::notification::AddressPart;
use crate::core::provider::ProviderName;
use crate::core::time::Time;

/// The query parameters of a request that nobody took yet.
pub(super) struct Params(Vec<(String, String)>);

/// Items per page when the request does not say.
pub(super) const LIMIT_DEFAULT: usize = 100;
/// The largest page.
pub(super) const LIMIT_MAX: usize = 1000;

impl Params {
    /// Reads the query of `uri`, which may hold `known` parameters.
    ///
    /// # Errors
    /// 400 that names a parameter which is not known or is given twice.
    pub(super) fn of(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| Problem::bad_request("The query of the request cannot be read."))?;
        for (index, (name, _)) in pairs.iter().enumerate() {
            let shown: String = name.chars().take(100).collect();
            if !known.contains(&name.as_str()) {
                let list = if known.is_empty() { "none".into() } else { known.join(", ") };
                return Err(Problem::bad_request(format!(
                    "The query parameter {shown:?} is not known; this path takes {list}."
                )));
            }
            if pairs[..index].iter().any(|(earlier, _)| earlier == name) {
                return Err(Problem::bad_request(format!(
                    "The query parameter {shown:?} must not be given twice."
                )));
            }
        }
        Ok(Self(pairs))
    }

    /// Takes a parameter through `check`, whose error is a phrase that fits after its name.
    ///
    /// # Errors
    /// 400 that names the parameter and the rule.
    pub(super) fn take<T, E: Into<Cow<'static, str>>>(
        &self,
        name: &str,
        check: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Problem> {
        let Some((_, value)) = self.0.iter().find(|(given, _)| given == name) else {
            return Ok(None);
        };
        check(value).map(Some).map_err(|rule| {
            let rule: Cow<'static, str> = rule.into();
            Problem::bad_request(format!("The query parameter {name:?} {rule}."))
        })
    }

    /// `provider`.
    pub(super) fn provider(&self) -> Result<Option<ProviderName>, Problem> {
        self.take("provider", |text| ProviderName::new(text).ok_or(NOT_A_PROVIDER_NAME))
    }

    /// `reason`.
    pub(super) fn reason(&self) -> Result<Option<DeadReason>, Problem> {
        self.take("reason", dead_reason)
    }

    /// `recipient`.
    pub(super) fn recipient(&self) -> Result<Option<AddressPart>, Problem> {
        self.take("recipient", address_part)
    }

    /// `limit`.
    pub(super) fn limit(&self) -> Result<usize, Problem> {
        let limit = self.take("limit", |text| {
            let number = text.parse().ok().filter(|n| (1..=LIMIT_MAX).contains(n));
            number.ok_or("must be a number from 1 to 1000")
        })?;
        Ok(limit.unwrap_or(LIMIT_DEFAULT))
    }

    /// `dryRun`.
    pub(super) fn dry_run(&self) -> Result<bool, Problem> {
        let given =
            self.take("dryRun", |text| text.parse().map_err(|_| "must be true or false"))?;
        Ok(given.unwrap_or(false))
    }

    /// `cursor` of a list of jobs: the last job of the page before.
    pub(super) fn job_cursor(&self) -> Result<Option<JobId>, Problem> {
        self.take("cursor", |text| text.parse().map_err(|_| NOT_A_CURSOR))
    }

    /// `cursor` of a list of dead letters: when the last one of the page before died, and which.
    pub(super) fn dead_cursor(&self) -> Result<Option<(Time, JobId)>, Problem> {
        self.take("cursor", |text| {
            let (at, id) = text.split_once('_').ok_or(NOT_A_CURSOR)?;
            let at = at.parse().map_err(|_| NOT_A_CURSOR)?;
            Ok::<_, &str>((Time(at), id.parse().map_err(|_| NOT_A_CURSOR)?))
        })
    }
}

/// The cursor that [`Params::dead_cursor`] reads.
pub(super) fn dead_cursor((at, id): (Time, JobId)) -> String {
    format!("{}_{id}", at.0)
}

/// The reason of that name; the error is the rule.
pub(super) fn dead_reason(text: &str) -> Result<DeadReason, String> {
    DeadReason::ALL.into_iter().find(|reason| reason.as_str() == text).ok_or_else(|| {
        format!("must be one of {}", DeadReason::ALL.map(DeadReason::as_str).join(", "))
    })
}

/// A part of an address; the error is the rule.
pub(super) fn address_part(text: &str) -> Result<AddressPart, &'static str> {
    AddressPart::new(text).ok_or("must be a part of an address: 1 to 254 characters")
}

/// The id in a path.
///
/// # Errors
/// 404: what is not an id names nothing.
pub(super) fn id<T: FromStr>(path: Result<Path<String>, PathRejection>) -> Result<T, Problem> {
    let parsed = path.ok().and_then(|Path(text)| text.parse().ok());
    parsed.ok_or_else(|| Problem::not_found("This is not an id."))
}

/// The rule of a provider's name, as a phrase that fits after a field's name.
pub(super) const NOT_A_PROVIDER_NAME: &str =
    "must be the name of a MailProvider: lower-case letters, digits, hyphens and dots";
const NOT_A_CURSOR: &str = "must be the \"next\" of an earlier page";
