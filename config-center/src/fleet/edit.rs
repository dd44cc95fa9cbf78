//! Editing objects by compare-and-swap: read, edit, publish only if nobody else changed them.
//!
//! The edit is asked again after a lost race, so it must find its work done when it is done.

use std::time::Duration;

use config_center_core::fleet::inventory::{Inventory, Loaded, load_stored};
use schemas::objects::Object;
use schemas_client::Client;

use super::{
    audit::Author,
    error::FleetError,
    keys::Namespace,
    publish::{Published, Wish, publish},
    snapshot,
};

/// Publishers who meet on one object sort themselves out in a few rounds.
const ROUNDS: u32 = 16;
const PAUSE: Duration = Duration::from_millis(20);

/// Publishes what `edit` makes of the objects, and gives its remarks back with the release.
pub async fn publish_edit<N>(
    client: &Client,
    ns: &Namespace,
    author: &Author,
    allow_emptying: bool,
    edit: impl Fn(&Inventory) -> Result<(Vec<Object>, N), FleetError>,
) -> Result<(Published, N), FleetError> {
    for _ in 0..ROUNDS {
        let inventory = snapshot::read(client, ns).await?.inventory;
        let (objects, remarks) = edit(&inventory)?;
        let revision = |object: &Object| {
            let there = inventory.get(&object.id());
            let revision = there.and_then(Loaded::store_revision).unwrap_or(0);
            (object.id(), revision)
        };
        let wish = Wish {
            expected: objects.iter().map(revision).collect(),
            put: objects.iter().map(loaded).collect::<Result<_, _>>()?,
            allow_emptying,
            ..Default::default()
        };
        match publish(client, ns, &wish, author).await {
            Ok(published) => return Ok((published, remarks)),
            Err(FleetError::Precondition(_)) => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(error),
        }
    }
    Err(FleetError::RaceLost { rounds: ROUNDS })
}

/// An object made by a program, as if it had been read.
pub fn loaded(object: &Object) -> Result<Loaded, FleetError> {
    load_stored(&object.id().to_string(), 0, object.to_json().as_bytes())
        .map_err(|problem| FleetError::Objects(vec![problem]))
}
