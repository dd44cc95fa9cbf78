//! How many bytes may be in flight: in all, per topic and per entry.
//!
//! Pure arithmetic. Each entry is a lane of its topic. A topic may hold at most `SHARE` times what
//! is still free, and a lane at most `SHARE` times what is still free for its topic. So the space
//! that stuck ones can take shrinks with what they hold already, and there is always room for one
//! more: a topic that takes nothing never stops the others, and neither does an entry whose
//! partition has no leader.

/// With one busy entry two thirds of the space are its topic's, and two thirds of that its own.
const SHARE: u64 = 2;

#[derive(Debug)]
pub struct Budget {
    max_bytes: u64,
    used_bytes: u64,
    /// Topics are few, so they are simply kept.
    topics: Vec<Topic>,
    lanes: Vec<Lane>,
}

#[derive(Debug)]
struct Topic {
    name: String,
    used_bytes: u64,
}

#[derive(Debug)]
struct Lane {
    topic: usize,
    path: String,
    used_bytes: u64,
    /// How many tails use it. One that none uses and that is empty is given to another entry.
    tails: usize,
}

impl Budget {
    pub fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            used_bytes: 0,
            topics: Vec::new(),
            lanes: Vec::new(),
        }
    }

    /// The lane of an entry, for one more tail of it. `path` is the one that the entry asks for.
    pub fn join(&mut self, topic: &str, path: &str) -> usize {
        let topic = self.topic(topic);
        let is_it = |lane: &Lane| lane.topic == topic && lane.path == path;
        let is_free = |lane: &Lane| lane.tails == 0 && lane.used_bytes == 0;
        let known = self.lanes.iter().position(is_it);
        let at = known
            .or_else(|| self.lanes.iter().position(is_free))
            .unwrap_or(self.lanes.len());
        if let Some(lane) = self.lanes.get_mut(at).filter(|lane| is_it(lane)) {
            lane.tails += 1;
            return at;
        }
        let lane = Lane {
            topic,
            path: path.to_owned(),
            used_bytes: 0,
            tails: 1,
        };
        match self.lanes.get_mut(at) {
            Some(free) => *free = lane,
            None => self.lanes.push(lane),
        }
        at
    }

    /// A tail ends; what it has in flight is still released later.
    pub fn leave(&mut self, lane: usize) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.tails = lane.tails.saturating_sub(1);
        }
    }

    fn topic(&mut self, name: &str) -> usize {
        let known = self.topics.iter().position(|topic| topic.name == name);
        known.unwrap_or_else(|| {
            self.topics.push(Topic {
                name: name.to_owned(),
                used_bytes: 0,
            });
            self.topics.len() - 1
        })
    }

    pub fn charge(&mut self, lane: usize, bytes: u64) {
        self.used_bytes += bytes;
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.used_bytes += bytes;
            self.topics[lane.topic].used_bytes += bytes;
        }
    }

    pub fn release(&mut self, lane: usize, bytes: u64) {
        self.used_bytes = self.used_bytes.saturating_sub(bytes);
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.used_bytes = lane.used_bytes.saturating_sub(bytes);
            let topic = &mut self.topics[lane.topic];
            topic.used_bytes = topic.used_bytes.saturating_sub(bytes);
        }
    }

    /// Whether the lane may read one more block.
    pub fn has_room(&self, lane: usize) -> bool {
        let free_bytes = self.max_bytes.saturating_sub(self.used_bytes);
        let Some(lane) = self.lanes.get(lane) else {
            return free_bytes > 0;
        };
        let topic_used_bytes = self.topics[lane.topic].used_bytes;
        let topic_free_bytes = (free_bytes * SHARE).saturating_sub(topic_used_bytes);
        free_bytes > 0
            && topic_used_bytes <= free_bytes * SHARE
            && lane.used_bytes <= topic_free_bytes.max(1) * SHARE
    }

    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(budget: &mut Budget, lane: usize) {
        assert!(budget.has_room(lane), "{lane}: {budget:?}");
        while budget.has_room(lane) {
            budget.charge(lane, 1);
        }
    }

    #[test]
    fn stuck_topics_leave_room_for_others() {
        let mut budget = Budget::new(1_000);
        for topic in 0..4 {
            let lane = budget.join(&format!("stuck{topic}"), "/a");
            fill(&mut budget, lane);
        }
        let lane = budget.join("well", "/a");
        assert!(budget.has_room(lane));
        assert!(budget.used_bytes() < 1_000);
        assert_eq!(budget.join("well", "/a"), lane);
    }

    #[test]
    fn stuck_entries_leave_room_for_others_of_their_topic() {
        let mut budget = Budget::new(100_000);
        for path in 0..4 {
            let lane = budget.join("t", &format!("/stuck{path}"));
            fill(&mut budget, lane);
        }
        let lane = budget.join("t", "/well");
        assert!(budget.has_room(lane));
        let other = budget.join("u", "/other");
        fill(&mut budget, other);
    }

    #[test]
    fn one_busy_entry_has_most_of_the_space() {
        let mut budget = Budget::new(90_000);
        let lane = budget.join("t", "/a");
        fill(&mut budget, lane);
        assert!(budget.used_bytes() > 45_000, "{budget:?}");
    }

    #[test]
    fn what_is_released_is_free_again() {
        let mut budget = Budget::new(100);
        let lane = budget.join("t", "/a");
        budget.charge(lane, 100);
        assert!(!budget.has_room(lane));
        // A tail that ends leaves its lane to another entry, but only when it is empty.
        budget.leave(lane);
        assert_ne!(budget.join("t", "/b"), lane);
        budget.release(lane, 100);
        assert_eq!(budget.used_bytes(), 0);
        assert_eq!(budget.join("t", "/c"), lane);
        assert!(budget.has_room(lane));
    }
}
