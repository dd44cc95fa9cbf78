//! Carries rollouts out: in `config-center fleet`, and on the member of our own store that leads.
//!
//! As many of these may run as one likes, beside configctl: every step is fenced by its own
//! transaction. This one goes on when the store is away and comes back.

use std::time::Duration;

use schemas_client::Client;

use super::{
    driver::{Driver, News},
    error::FleetError,
    keys::Namespace,
};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Runs until it is dropped.
pub async fn serve(client: Client, ns: Namespace) {
    let mut pause = FIRST_PAUSE;
    loop {
        match drive(&client, &ns, &mut pause).await {
            FleetError::Client(error) if error.is_transient() => {
                tracing::warn!("the store is away: {error}; trying again");
            }
            error => tracing::error!("rollouts stand still: {error}; trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Drives until something is in the way.
async fn drive(client: &Client, ns: &Namespace, pause: &mut Duration) -> FleetError {
    let mut driver = match Driver::new(client.clone(), ns.clone()).await {
        Ok(driver) => driver,
        Err(error) => return error,
    };
    tracing::info!(
        rollouts = driver.view().rollouts.len(),
        "carrying rollouts out"
    );
    for (key, reason) in &driver.view().unreadable {
        tracing::warn!("{key} is left out: {reason}");
    }
    *pause = FIRST_PAUSE;
    loop {
        let news = match driver.step().await {
            Ok(News::Idle) => {
                let until = driver.next_look();
                driver.wait(until).await
            }
            other => other,
        };
        match news {
            Ok(News::Stepped { id }) => {
                if let Some((rollout, _)) = driver.view().rollouts.get(&id) {
                    tracing::info!(
                        rollout = id,
                        phase = rollout.progress.phase.as_str(),
                        wave = rollout.progress.wave + 1,
                        published = rollout.progress.published,
                        hosts = rollout.hosts,
                        "step taken"
                    );
                }
            }
            Ok(News::Faulty { id, reason }) => {
                tracing::error!("rollout {id} stands still: {reason}")
            }
            Ok(News::StoreGone { reason }) => tracing::warn!("the store was away: {reason}"),
            Ok(News::Idle) => {}
            Err(error) => return error,
        }
    }
}
