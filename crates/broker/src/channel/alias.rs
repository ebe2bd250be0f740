//! Topic aliases of one MQTT 5 connection, both ways.
//!
//! Tables are made on first use: most clients never send an alias. They die with the connection
//! [MQTT-3.3.2-7].

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;

/// Aliases the client has set for its own publishes.
#[derive(Debug, Default)]
pub(crate) struct AliasIn {
    // Sparse: a client may use alias 65,535 first, and must not make us allocate for it.
    topics: HashMap<u16, Arc<Box<str>>, foldhash::fast::FixedState>,
}

/// A topic alias that is out of bounds or was never set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AliasError {
    /// 0 or above our Topic Alias Maximum: DISCONNECT 0x94.
    Invalid,
    /// Empty topic with an alias not set before: DISCONNECT 0x82.
    Unknown,
}

impl AliasIn {
    /// Resolves a publish: sets the alias when a topic comes with it, else gives its topic.
    pub(crate) fn resolve(
        &mut self,
        alias: u16,
        max: u16,
        topic: &str,
    ) -> Result<Option<Arc<Box<str>>>, AliasError> {
        if alias == 0 || alias > max {
            return Err(AliasError::Invalid);
        }
        if topic.is_empty() {
            return self
                .topics
                .get(&alias)
                .cloned()
                .map(Some)
                .ok_or(AliasError::Unknown);
        }
        // Sending the topic again with its alias is common and costs no allocation.
        if self
            .topics
            .get(&alias)
            .is_none_or(|known| ***known != *topic)
        {
            self.topics.insert(alias, Arc::new(topic.into()));
        }
        Ok(None)
    }
}

/// Aliases we have set towards the client.
#[derive(Debug)]
pub(crate) struct AliasOut {
    max: u16,
    known: HashMap<Bytes, u16, foldhash::fast::FixedState>,
}

/// How a topic goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alias {
    /// No alias is left: the topic itself.
    None,
    /// The topic with its new alias.
    Set(u16),
    /// The alias alone.
    Use(u16),
}

impl AliasOut {
    /// Aliases 1..=`max`, the client's Topic Alias Maximum.
    pub(crate) fn new(max: u16) -> Self {
        Self {
            max,
            known: HashMap::default(),
        }
    }

    /// How to send `topic`; the caller sends it, or the table and the client disagree.
    pub(crate) fn pick(&mut self, topic: &[u8]) -> Alias {
        if let Some(alias) = self.known.get(topic) {
            return Alias::Use(*alias);
        }
        if self.known.len() >= usize::from(self.max) {
            return Alias::None;
        }
        let alias = self.known.len() as u16 + 1;
        self.known.insert(Bytes::copy_from_slice(topic), alias);
        Alias::Set(alias)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inbound_aliases_are_set_used_replaced_and_bounded() {
        let mut aliases = AliasIn::default();
        let known = |topic: &str| Ok(Some(Arc::new(Box::from(topic))));
        assert_eq!(aliases.resolve(0, 10, "a"), Err(AliasError::Invalid));
        assert_eq!(aliases.resolve(11, 10, "a"), Err(AliasError::Invalid));
        assert_eq!(aliases.resolve(3, 10, ""), Err(AliasError::Unknown));
        assert_eq!(aliases.resolve(3, 10, "a"), Ok(None));
        assert_eq!(aliases.resolve(3, 10, ""), known("a"));
        assert_eq!(aliases.resolve(3, 10, "b"), Ok(None));
        assert_eq!(aliases.resolve(3, 10, ""), known("b"));
    }

    #[test]
    fn outbound_aliases_stop_at_the_clients_maximum() {
        let mut aliases = AliasOut::new(2);
        assert_eq!(aliases.pick(b"a"), Alias::Set(1));
        assert_eq!(aliases.pick(b"b"), Alias::Set(2));
        assert_eq!(aliases.pick(b"c"), Alias::None);
        assert_eq!(aliases.pick(b"a"), Alias::Use(1));
    }
}
