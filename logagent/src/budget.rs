//! How many bytes may be in flight, in all and per topic.
//!
//! Pure arithmetic. Each topic is a lane. A lane may hold at most `LANE_SHARE` times what is still
//! free, so the space that stuck topics can take shrinks with what they hold already, and there is
//! always room for one more lane: a topic that takes nothing never stops the others.

/// With one busy topic two thirds of the space are its own.
const LANE_SHARE: u64 = 2;

#[derive(Debug)]
pub struct Budget {
    max_bytes: u64,
    used_bytes: u64,
    lanes: Vec<Lane>,
}

#[derive(Debug)]
struct Lane {
    topic: String,
    used_bytes: u64,
}

impl Budget {
    pub fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            used_bytes: 0,
            lanes: Vec::new(),
        }
    }

    /// The lane of a topic, made on first use.
    pub fn lane(&mut self, topic: &str) -> usize {
        let known = self.lanes.iter().position(|lane| lane.topic == topic);
        known.unwrap_or_else(|| {
            // A lane that nothing is in flight on may be given to another topic only when no tail
            // uses it; topics are few, so lanes are simply kept.
            self.lanes.push(Lane {
                topic: topic.to_owned(),
                used_bytes: 0,
            });
            self.lanes.len() - 1
        })
    }

    pub fn charge(&mut self, lane: usize, bytes: u64) {
        self.used_bytes += bytes;
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.used_bytes += bytes;
        }
    }

    pub fn release(&mut self, lane: usize, bytes: u64) {
        self.used_bytes = self.used_bytes.saturating_sub(bytes);
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.used_bytes = lane.used_bytes.saturating_sub(bytes);
        }
    }

    /// Whether the lane may read one more block.
    pub fn has_room(&self, lane: usize) -> bool {
        let free_bytes = self.max_bytes.saturating_sub(self.used_bytes);
        let used_bytes = self.lanes.get(lane).map_or(0, |lane| lane.used_bytes);
        free_bytes > 0 && used_bytes <= free_bytes * LANE_SHARE
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

    #[test]
    fn stuck_lanes_leave_room_for_others() {
        let mut budget = Budget::new(1_000);
        for topic in 0..5 {
            let lane = budget.lane(&format!("stuck{topic}"));
            assert!(budget.has_room(lane), "{topic}");
            while budget.has_room(lane) {
                budget.charge(lane, 1);
            }
        }
        let lane = budget.lane("well");
        assert!(budget.has_room(lane));
        assert!(budget.used_bytes() < 1_000);
        assert_eq!(budget.lane("well"), lane);
    }

    #[test]
    fn what_is_released_is_free_again() {
        let mut budget = Budget::new(100);
        let lane = budget.lane("a");
        budget.charge(lane, 100);
        assert!(!budget.has_room(lane));
        budget.release(lane, 60);
        assert!(budget.has_room(lane));
        budget.release(lane, 60);
        assert_eq!(budget.used_bytes(), 0);
    }
}
