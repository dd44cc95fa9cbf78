//! The fleet from the operator's side: the real configctl against a real store, the built-in one
//! and an etcd of somebody else, with agents that report what they run.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a panic with a place"
)]

mod api;
mod declare;
mod drift;
mod history;
mod operator;
mod rollouts;
mod stand;
mod troubles;

/// Runs a test on both stores: one code path, whatever lies below.
macro_rules! on_both_stores {
    ($($name:ident),* $(,)?) => {
        mod own {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::stand::Kind::Own).await;
            })*
        }
        mod etcd {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::stand::Kind::Etcd).await;
            })*
        }
    };
}
pub(crate) use on_both_stores;

/// A group with these members and one entry, without a policy.
pub(crate) fn group(name: &str, members: &[String], path: &str, topic: &str) -> String {
    format!(
        "---\napiVersion: logconf/v1\nkind: Group\nmetadata: {{name: {name}}}\nspec: {{members: [{}], logs: \
         [{{path: {path}, topic: {topic}}}]}}\n",
        members.join(", ")
    )
}

pub(crate) fn hosts(count: usize) -> Vec<String> {
    (1..=count).map(|index| format!("10.0.0.{index}")).collect()
}

/// An entry as the fleet writes it.
pub(crate) fn entry(path: &str, topic: &str) -> String {
    format!(r#"{{"path":"{path}","topic":"{topic}"}}"#)
}
