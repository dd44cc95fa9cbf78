//! The end of a member that the cluster has removed: it stops, and says why.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::storage::FailureSlot;

pub(super) const TEXT: &str = "the member has been permanently removed from the cluster: its data folder is of no further use; to take part again it must be added as a new member";

/// The others are told first, and whoever asked for the removal is answered.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// Where the news of this member's removal goes. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Removal {
    failure: FailureSlot,
    happened: Arc<AtomicBool>,
}

impl Removal {
    pub(super) fn new(failure: FailureSlot) -> Self {
        Self {
            failure,
            happened: Arc::default(),
        }
    }

    /// Another member says so.
    pub(super) fn is_told(&self) {
        self.happened.store(true, Ordering::Release);
        self.failure.report(TEXT.to_owned());
    }

    /// This member's own log says so.
    pub(super) fn is_applied(&self) {
        if self.happened.swap(true, Ordering::AcqRel) {
            return;
        }
        let failure = self.failure.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LINGER_TIME).await;
            failure.report(TEXT.to_owned());
        });
    }

    pub(super) fn has_happened(&self) -> bool {
        self.happened.load(Ordering::Acquire)
    }
}
