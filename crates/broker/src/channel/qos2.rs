//! Inbound QoS 2: packet ids whose PUBREC is out and whose PUBREL is not in.
//!
//! The set belongs to the session: a client that reconnects and sends the same id again must not
//! be routed twice [MQTT-4.3.3-10].

/// Ids waiting for PUBREL, in arrival order of their publishes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AwaitingRel {
    // A hundred entries by default: scanning them beats hashing, and releases come in order.
    ids: Vec<(u16, u32)>,
    /// A deadline runs at which the oldest are looked at.
    pub(crate) armed: bool,
}

impl AwaitingRel {
    /// Whether the id waits.
    pub(crate) fn contains(&self, packet_id: u16) -> bool {
        self.ids.iter().any(|(id, _)| *id == packet_id)
    }

    /// Adds an id that does not wait; `since_s` is the mono clock in seconds.
    pub(crate) fn insert(&mut self, packet_id: u16, since_s: u32) {
        debug_assert!(!self.contains(packet_id));
        self.ids.push((packet_id, since_s));
    }

    /// PUBREL: whether it waited.
    pub(crate) fn remove(&mut self, packet_id: u16) -> bool {
        let Some(at) = self.ids.iter().position(|(id, _)| *id == packet_id) else {
            return false;
        };
        self.ids.remove(at);
        true
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Drops what has waited since before `limit_s`; returns how many.
    pub(crate) fn expire(&mut self, limit_s: u32) -> usize {
        let before = self.ids.len();
        self.ids.retain(|(_, since)| *since > limit_s);
        before - self.ids.len()
    }

    /// The oldest entry's time, seconds.
    pub(crate) fn oldest_s(&self) -> Option<u32> {
        self.ids.first().map(|(_, since)| *since)
    }

    /// The ids, for moving the session.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u16> + '_ {
        self.ids.iter().map(|(id, _)| *id)
    }

    /// From ids of a moved session, which start waiting again.
    pub(crate) fn from_ids(ids: impl Iterator<Item = u16>, since_s: u32) -> Self {
        Self {
            ids: ids.map(|id| (id, since_s)).collect(),
            armed: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_wait_until_released_or_too_old() {
        let mut waiting = AwaitingRel::default();
        for id in 1..=3 {
            waiting.insert(id, u32::from(id) * 10);
        }
        assert!(waiting.contains(2) && waiting.remove(2) && !waiting.remove(2));
        assert_eq!(waiting.oldest_s(), Some(10));
        assert_eq!(waiting.expire(10), 1);
        assert_eq!(waiting.ids().collect::<Vec<_>>(), [3]);
    }
}
