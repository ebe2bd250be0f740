//! Where clients are sent when this node does not want them any more.
//!
//! MQTT 5 lets a server say "use another server" and which (§4.11); older clients are only cut off
//! and find their way by their own list or a load balancer.

use std::collections::BTreeMap;

/// Addresses of other nodes by listener id: a client of `ssl:default` needs a TLS port again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirect {
    by_listener: BTreeMap<String, Vec<String>>,
    /// What an operator has chosen for all listeners.
    everyone: Option<String>,
}

impl Redirect {
    /// One Server Reference for the clients of all listeners: addresses, separated by spaces.
    pub fn everyone(reference: String) -> Self {
        Self {
            everyone: Some(reference),
            ..Self::default()
        }
    }

    /// Adds the address, `host:port`, of a listener of another node.
    pub fn add(&mut self, listener: &str, address: String) {
        let addresses = self.by_listener.entry(listener.to_owned()).or_default();
        addresses.push(address);
    }

    /// Whether nobody can be sent anywhere.
    pub fn is_empty(&self) -> bool {
        self.by_listener.is_empty() && self.everyone.is_none()
    }

    /// Where a client of a listener goes; `turn` spreads clients over the other nodes.
    pub fn of(&self, listener: &str, turn: usize) -> Option<&str> {
        if let Some(reference) = &self.everyone {
            return Some(reference);
        }
        let addresses = self.by_listener.get(listener)?;
        let at = turn % addresses.len().max(1);
        addresses.get(at).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_a_listener_are_spread_over_its_like() {
        let mut redirect = Redirect::default();
        assert!(redirect.is_empty());
        redirect.add("tcp:default", "b:1883".to_owned());
        redirect.add("tcp:default", "c:1883".to_owned());
        redirect.add("ssl:default", "b:8883".to_owned());
        let tcp: Vec<_> = (0..3)
            .map(|turn| redirect.of("tcp:default", turn))
            .collect();
        assert_eq!(tcp, [Some("b:1883"), Some("c:1883"), Some("b:1883")]);
        assert_eq!(redirect.of("ssl:default", 5), Some("b:8883"));
        assert_eq!(redirect.of("ws:default", 0), None);
        let chosen = Redirect::everyone("b:1 c:2".to_owned());
        assert_eq!(chosen.of("ws:default", 1), Some("b:1 c:2"));
        assert!(!chosen.is_empty());
    }
}
