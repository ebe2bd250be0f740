//! Whether this node looks for others by itself.
//!
//! A node that is told to leave its cluster must not be led back by its discovery strategy a moment
//! later; so leaving switches discovery off until an operator or a restart switches it on again.

use std::sync::atomic::{AtomicBool, Ordering};

use dunlin_config::settings::Strategy;
use tokio::sync::Notify;

/// The switch.
pub(crate) struct Discovery {
    configured: bool,
    enabled: AtomicBool,
    switched_on: Notify,
}

impl Discovery {
    pub(crate) fn new(strategy: &Strategy) -> Self {
        let configured = !matches!(strategy, Strategy::Manual | Strategy::Singleton);
        Self {
            configured,
            enabled: AtomicBool::new(configured),
            switched_on: Notify::new(),
        }
    }

    /// Switches off; whether that changes anything.
    pub(crate) fn disable(&self) -> bool {
        self.enabled.swap(false, Ordering::Relaxed)
    }

    /// Switches on and has it run now, if a strategy is configured.
    pub(crate) fn enable(&self) {
        self.enabled.store(self.configured, Ordering::Relaxed);
        self.switched_on.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_configured_strategy_can_be_switched() {
        let manual = Discovery::new(&Strategy::Manual);
        manual.enable();
        assert!(!manual.disable());
        let fixed = Discovery::new(&Strategy::Static { seeds: Vec::new() });
        assert!(fixed.disable());
        assert!(!fixed.disable());
        fixed.enable();
        assert!(fixed.disable());
    }
}
