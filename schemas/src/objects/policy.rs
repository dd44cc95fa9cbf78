//! How a change travels through a fleet: in which waves, and what stops it.

use serde::{Deserialize, Serialize};

use super::checked::Span;

const DEFAULT_PROGRESS_DEADLINE: Span = Span::from_s(600);
/// More waves than this is a slip of the pen.
const MAX_WAVES: usize = 100;
const MAX_WAVE_HOSTS: u32 = 1_000_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PolicySpec {
    /// Sizes counted from the first host: each holds the one before. The last one is all hosts.
    #[serde(default = "all_at_once")]
    #[schemars(length(min = 1, max = 100))]
    pub waves: Vec<Wave>,
    /// How long a wave must stay applied before the next one begins.
    #[serde(default)]
    pub bake: Span,
    /// Failed hosts that a rollout bears.
    #[serde(default)]
    #[schemars(range(max = 1_000_000))]
    pub max_failures: u32,
    #[serde(default)]
    pub on_failure: OnFailure,
    #[serde(default)]
    pub offline: Offline,
    /// A host that has not applied its wave after this time has failed.
    #[serde(default = "default_deadline")]
    pub progress_deadline: Span,
    /// When a wave may begin. Absent: at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
}

fn all_at_once() -> Vec<Wave> {
    vec![Wave::Percent(100)]
}

fn default_deadline() -> Span {
    DEFAULT_PROGRESS_DEADLINE
}

impl Default for PolicySpec {
    fn default() -> Self {
        Self {
            waves: all_at_once(),
            bake: Span::default(),
            max_failures: 0,
            on_failure: OnFailure::default(),
            offline: Offline::default(),
            progress_deadline: DEFAULT_PROGRESS_DEADLINE,
            window: None,
        }
    }
}

/// Up to where a wave reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Wave {
    Hosts(#[schemars(range(min = 1, max = 1_000_000))] u32),
    Percent(#[schemars(range(min = 1, max = 100))] u32),
}

#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Stop and wait for an operator.
    #[default]
    Pause,
    /// Put the release back.
    Rollback,
}

/// What to do with a host whose agent does not report.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Offline {
    /// Publish to it and do not wait: it applies the change when it comes back.
    #[default]
    Defer,
    /// Wait for it, up to the deadline.
    Wait,
    /// Count it as failed.
    Fail,
}

/// Part of a day in which waves may begin, by the clock of one offset from UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Window {
    /// `HH:MM`
    #[schemars(regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub from: String,
    /// `HH:MM`; before `from`, the window ends on the next day.
    #[schemars(regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub to: String,
    /// Days on which the window opens. Absent: every day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<Weekday>,
    /// Such as `+08:00`. Absent: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[+-](0[0-9]|1[0-4]):[0-5][0-9]$"))]
    pub utc_offset: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

const DAY_MINUTES: i64 = 24 * 60;

impl PolicySpec {
    /// Field, index in it, and what is wrong.
    pub(super) fn faults(&self) -> Vec<(&'static str, Option<usize>, String)> {
        let mut faults = Vec::new();
        if self.waves.is_empty() || self.waves.len() > MAX_WAVES {
            faults.push((
                "waves",
                None,
                format!("a policy has 1 to {MAX_WAVES} waves"),
            ));
        }
        for (index, wave) in self.waves.iter().enumerate() {
            let in_range = match wave {
                Wave::Hosts(hosts) => (1..=MAX_WAVE_HOSTS).contains(hosts),
                Wave::Percent(percent) => (1..=100).contains(percent),
            };
            if !in_range {
                let message = "a wave has at least one host and at most 100 percent".into();
                faults.push(("waves", Some(index), message));
            }
            let shrinks = match (index.checked_sub(1).map(|before| self.waves[before]), wave) {
                (Some(Wave::Hosts(before)), Wave::Hosts(now)) => before >= *now,
                (Some(Wave::Percent(before)), Wave::Percent(now)) => before >= *now,
                // How many hosts a percentage is, only the rollout knows.
                _ => false,
            };
            if shrinks {
                let message = "a wave holds the one before and more: sizes must grow".into();
                faults.push(("waves", Some(index), message));
            }
        }
        if let Some(last) = self
            .waves
            .last()
            .filter(|last| **last != Wave::Percent(100))
        {
            let index = self.waves.len() - 1;
            let message = format!(
                "the last wave is {last:?} and leaves hosts out: end with {{percent: 100}}"
            );
            faults.push(("waves", Some(index), message));
        }
        if self.max_failures > MAX_WAVE_HOSTS {
            faults.push(("maxFailures", None, format!("at most {MAX_WAVE_HOSTS}")));
        }
        if self.progress_deadline.ms == 0 {
            let message = "a deadline of 0 fails every host at once".into();
            faults.push(("progressDeadline", None, message));
        }
        if let Some(message) = self.window.as_ref().and_then(Window::fault) {
            faults.push(("window", None, message));
        }
        faults
    }
}

impl Window {
    fn fault(&self) -> Option<String> {
        let day_time = |text: &str| match day_minute(text) {
            Some(_) => None,
            None => Some(format!("{text:?} is not a time of day: write 22:00")),
        };
        let offset = || match self.utc_offset.as_deref() {
            Some(text) if offset_minutes(text).is_none() => {
                Some(format!("{text:?} is not an offset from UTC: write +08:00"))
            }
            _ => None,
        };
        let empty = || (self.from == self.to).then(|| "the window is empty".to_owned());
        day_time(&self.from)
            .or_else(|| day_time(&self.to))
            .or_else(offset)
            .or_else(empty)
    }

    /// Whether the window is open at this Unix time.
    pub fn is_open(&self, now_ms: u64) -> bool {
        let (Some(from), Some(to)) = (day_minute(&self.from), day_minute(&self.to)) else {
            return false;
        };
        let offset = self
            .utc_offset
            .as_deref()
            .and_then(offset_minutes)
            .unwrap_or(0);
        let minutes = i64::try_from(now_ms / 60_000).unwrap_or(0) + offset;
        let (day, minute) = (
            minutes.div_euclid(DAY_MINUTES),
            minutes.rem_euclid(DAY_MINUTES),
        );
        let opened_on = |day: i64| self.days.is_empty() || self.days.contains(&weekday(day));
        if from < to {
            (from..to).contains(&minute) && opened_on(day)
        } else {
            (minute >= from && opened_on(day)) || (minute < to && opened_on(day - 1))
        }
    }
}

/// The day of the week of a day counted from 1970-01-01, a Thursday.
fn weekday(day: i64) -> Weekday {
    use Weekday::{Fri, Mon, Sat, Sun, Thu, Tue, Wed};
    const FROM_THURSDAY: [Weekday; 7] = [Thu, Fri, Sat, Sun, Mon, Tue, Wed];
    FROM_THURSDAY[usize::try_from(day.rem_euclid(7)).unwrap_or(0)]
}

fn day_minute(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let part = |digits: &str, below: i64| {
        let plain = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number: i64 = digits.parse().ok()?;
        (plain && number < below).then_some(number)
    };
    Some(part(hours, 24)? * 60 + part(minutes, 60)?)
}

fn offset_minutes(text: &str) -> Option<i64> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let minutes = day_minute(rest)?;
    (minutes < 15 * 60).then_some(sign * minutes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(from: &str, to: &str, days: &[Weekday], offset: Option<&str>) -> Window {
        Window {
            from: from.into(),
            to: to.into(),
            days: days.to_vec(),
            utc_offset: offset.map(str::to_owned),
        }
    }

    /// 2026-01-02, a Friday, at this UTC time.
    fn friday(hour: u64, minute: u64) -> u64 {
        1_767_312_000_000 + (hour * 60 + minute) * 60_000
    }

    #[test]
    fn windows_open_and_close() {
        let day = window("09:00", "17:30", &[], None);
        for (hour, minute, open) in [
            (8, 59, false),
            (9, 0, true),
            (17, 29, true),
            (17, 30, false),
        ] {
            assert_eq!(day.is_open(friday(hour, minute)), open, "{hour}:{minute}");
        }
        // The night that began on Thursday is still Thursday's.
        let night = window("22:00", "06:00", &[Weekday::Thu], None);
        assert!(night.is_open(friday(5, 59)));
        assert!(!night.is_open(friday(6, 0)));
        assert!(!night.is_open(friday(23, 0)));
        let friday_night = window("22:00", "06:00", &[Weekday::Fri], None);
        assert!(friday_night.is_open(friday(23, 0)) && !friday_night.is_open(friday(5, 0)));
        // 22:00 in Shanghai is 14:00 UTC.
        let shanghai = window("22:00", "23:00", &[Weekday::Fri], Some("+08:00"));
        assert!(shanghai.is_open(friday(14, 0)) && !shanghai.is_open(friday(15, 0)));
        assert!(window("00:00", "01:00", &[Weekday::Sat], Some("+14:00")).is_open(friday(10, 0)));
    }

    #[test]
    fn wrong_policies_are_named() {
        let waves = |waves: &[Wave]| PolicySpec {
            waves: waves.to_vec(),
            ..Default::default()
        };
        assert!(PolicySpec::default().faults().is_empty());
        let all = Wave::Percent(100);
        for bad in [
            waves(&[]),
            waves(&[Wave::Percent(50)]),
            waves(&[Wave::Percent(50), Wave::Percent(50), all]),
            waves(&[Wave::Hosts(3), Wave::Hosts(2), all]),
            waves(&[Wave::Percent(0), all]),
            PolicySpec {
                progress_deadline: Span::default(),
                ..Default::default()
            },
            PolicySpec {
                window: Some(window("9:00", "10:00", &[], None)),
                ..Default::default()
            },
            PolicySpec {
                window: Some(window("09:00", "09:00", &[], None)),
                ..Default::default()
            },
            PolicySpec {
                window: Some(window("09:00", "10:00", &[], Some("8"))),
                ..Default::default()
            },
        ] {
            assert!(!bad.faults().is_empty(), "{bad:?}");
        }
        assert!(
            waves(&[Wave::Hosts(1), Wave::Percent(10), all])
                .faults()
                .is_empty()
        );
    }
}
