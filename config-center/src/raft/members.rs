//! Who belongs to the cluster. The replicated membership says who is in it, where its peers are and
//! who votes; the state adds what each member published about itself.

use schemas::etcdserverpb::Member;

use super::node::Node;

impl Node {
    /// As far as this member has applied, by id. A member that never started has no name and no
    /// client urls.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let published = self.engine.read(config_center_core::State::members);
        let membership = self.mark.membership();
        let membership = membership.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let mut members: Vec<Member> = membership
            .nodes()
            .map(|(id, node)| {
                let known = published.iter().find(|member| member.id == *id);
                Member {
                    id: *id,
                    name: known.map(|member| member.name.clone()).unwrap_or_default(),
                    peer_ur_ls: node.peer_urls.clone(),
                    client_ur_ls: known
                        .map(|member| member.client_ur_ls.clone())
                        .unwrap_or_default(),
                    is_learner: !voters.contains(id) && !node.votes_when_ready,
                }
            })
            .collect();
        members.sort_unstable_by_key(|member| member.id);
        members
    }

    /// Whether this member was in the cluster once and is not any more.
    pub(super) fn was_removed(&self, id: u64) -> bool {
        self.engine.read(|state| state.was_removed(id))
    }
}
