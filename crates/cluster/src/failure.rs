//! Failure detection: who is alive, suspected, down. SWIM with indirect probes, by `foca`.
//!
//! Its datagrams ride the control links; they are never repeated. A verdict is about one life of a
//! detector (`SwimId`): a node that hears it was declared down takes a new life and is up again. It
//! never decides membership.

use std::collections::BTreeMap;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use bytes::Bytes;
use foca::{Foca, Identity, Member, NoCustomBroadcast, Notification, PostcardCodec, State, Timer};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::identity::SiteId;

/// How many others are asked to probe a silent member; three routes round a broken link suffice.
const INDIRECT_PROBES: NonZeroUsize = NonZeroUsize::new(3).expect("not zero");

/// How often one update is passed on; enough for clusters of hundreds, and bounded.
const TRANSMISSIONS: NonZeroU8 = NonZeroU8::new(10).expect("not zero");

/// Longest datagram, bytes; foca's own default, far below any frame limit.
const DATAGRAM_BYTES_MAX: NonZeroUsize = NonZeroUsize::new(1_400).expect("not zero");

/// After so many suspicion times a suspicion that nobody has decided is dropped.
///
/// Whoever starts one decides it; but the news of the refutation can get lost with the links it
/// travels, and a detector that takes a new life forgets its timers. Nobody would come back to it.
const STUCK_SUSPICIONS: u64 = 2;

/// How often news is passed on, milliseconds.
const GOSSIP_PERIOD_MS: u64 = 200;

/// One life of a failure detector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SwimId {
    pub(crate) site: SiteId,
    /// Grows with every life: a hybrid clock reading at start, plus one per renewal.
    pub(crate) epoch: u64,
}

impl Identity for SwimId {
    type Addr = SiteId;

    fn renew(&self) -> Option<Self> {
        Some(Self {
            site: self.site,
            epoch: self.epoch.wrapping_add(1),
        })
    }

    fn addr(&self) -> SiteId {
        self.site
    }

    fn win_addr_conflict(&self, other: &Self) -> bool {
        self.epoch > other.epoch
    }
}

/// What the detector found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The site is alive, as far as anybody can tell.
    Alive(SiteId),
    /// The site has been silent towards everybody for the suspicion time.
    Down(SwimId),
    /// Others say that this life is over, and we had no suspicion of it.
    SaidDown(SwimId),
    /// We were declared down and took a new life, which peers should be told of.
    Renewed(SwimId),
}

/// Effects of one call into foca.
#[derive(Debug, Default)]
struct Sink {
    now_ms: u64,
    timers: BTreeMap<(u64, u64), Timer<SwimId>>,
    timer_count: u64,
    datagrams: Vec<(SiteId, Bytes)>,
    verdicts: Vec<Verdict>,
}

impl foca::Runtime<SwimId> for &mut Sink {
    fn notify(&mut self, notification: Notification<'_, SwimId>) {
        match notification {
            Notification::MemberUp(id) => self.verdicts.push(Verdict::Alive(id.site)),
            Notification::MemberDown(id) => self.verdicts.push(Verdict::Down(*id)),
            Notification::Rejoin(id) => self.verdicts.push(Verdict::Renewed(*id)),
            Notification::Rename(..)
            | Notification::Active
            | Notification::Idle
            | Notification::Defunct => {}
        }
    }

    fn send_to(&mut self, to: SwimId, data: &[u8]) {
        self.datagrams.push((to.site, Bytes::copy_from_slice(data)));
    }

    fn submit_after(&mut self, event: Timer<SwimId>, after: Duration) {
        self.timer_count += 1;
        let due = self.now_ms + after.as_millis() as u64;
        self.timers.insert((due, self.timer_count), event);
    }
}

/// The failure detector of one node in one cluster.
pub(crate) struct Failure {
    foca: Foca<SwimId, PostcardCodec, SmallRng, NoCustomBroadcast>,
    sink: Sink,
    /// Since when members are suspected, as of the last tick, mono ms.
    suspected: BTreeMap<SiteId, u64>,
    suspicion_ms: u64,
}

impl std::fmt::Debug for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Failure")
            .field("own", self.foca.identity())
            .finish_non_exhaustive()
    }
}

impl Failure {
    pub(crate) fn new(own: SwimId, config: &Config, seed: u64) -> Self {
        let ms = Duration::from_millis;
        let foca_config = foca::Config {
            probe_period: ms(config.probe_period_ms),
            probe_rtt: ms(config.probe_round_trip_ms),
            num_indirect_probes: INDIRECT_PROBES,
            max_transmissions: TRANSMISSIONS,
            suspect_to_down_after: ms(config.suspicion_ms),
            // Sites are few and a new life replaces the old one, so nothing need be forgotten.
            remove_down_after: None,
            max_packet_size: DATAGRAM_BYTES_MAX,
            notify_down_members: true,
            periodic_announce: None,
            periodic_announce_to_down_members: None,
            periodic_gossip: Some(foca::PeriodicParams {
                frequency: ms(GOSSIP_PERIOD_MS),
                num_members: INDIRECT_PROBES,
            }),
        };
        let rng = SmallRng::seed_from_u64(seed);
        Self {
            foca: Foca::new(own, foca_config, rng, PostcardCodec),
            sink: Sink::default(),
            suspected: BTreeMap::new(),
            suspicion_ms: config.suspicion_ms,
        }
    }

    /// Our present life.
    pub(crate) fn own(&self) -> SwimId {
        *self.foca.identity()
    }

    /// A datagram came. Garbage and strangers are foca's errors, and peer faults change nothing.
    pub(crate) fn received(&mut self, now_ms: u64, data: &[u8]) {
        self.sink.now_ms = now_ms;
        let before = self.sink.verdicts.len();
        if let Err(error) = self.foca.handle_data(data, &mut self.sink) {
            tracing::debug!(%error, "swim_datagram_refused");
        }
        for verdict in &mut self.sink.verdicts[before..] {
            if let Verdict::Down(id) = *verdict
                && !self.suspected.contains_key(&id.site)
            {
                *verdict = Verdict::SaidDown(id);
            }
        }
    }

    /// Runs the timers that are due, in their order.
    pub(crate) fn tick(&mut self, now_ms: u64) {
        self.sink.now_ms = now_ms;
        // A timer may set others that are due at once only after a period, so this ends.
        while let Some(entry) = self
            .sink
            .timers
            .first_entry()
            .filter(|e| e.key().0 <= now_ms)
        {
            let timer = entry.remove();
            if let Err(error) = self.foca.handle_timer(timer, &mut self.sink) {
                tracing::debug!(%error, "swim_timer_failed");
            }
        }
        self.drop_stuck_suspicions(now_ms);
    }

    /// A suspicion that was neither refuted nor confirmed in time is forgotten, and the next probes
    /// decide anew.
    fn drop_stuck_suspicions(&mut self, now_ms: u64) {
        let suspects = self
            .foca
            .iter_members()
            .filter(|m| m.state() == State::Suspect);
        let suspects: Vec<_> = suspects.cloned().collect();
        self.suspected
            .retain(|site, _| suspects.iter().any(|m| m.id().site == *site));
        for suspect in suspects {
            let (id, incarnation) = (*suspect.id(), suspect.incarnation());
            let since = *self.suspected.entry(id.site).or_insert(now_ms);
            if now_ms.saturating_sub(since) >= STUCK_SUSPICIONS * self.suspicion_ms {
                self.suspected.remove(&id.site);
                let anew = Member::new(id, incarnation.saturating_add(1), State::Alive);
                self.apply(now_ms, anew);
            }
        }
    }

    /// Moves all timers, after a time in which this node did not run.
    pub(crate) fn postpone(&mut self, ms: u64) {
        let timers = std::mem::take(&mut self.sink.timers);
        let later = timers.into_iter();
        let later = later.map(|((due, count), timer)| ((due + ms, count), timer));
        self.sink.timers = later.collect();
        self.suspected.values_mut().for_each(|since| *since += ms);
    }

    /// When to call [`Self::tick`].
    pub(crate) fn next_tick(&self) -> u64 {
        self.sink
            .timers
            .first_key_value()
            .map_or(u64::MAX, |((due, _), _)| *due)
    }

    /// A peer told us its present life over a proven link: it is alive. Returns the life we know
    /// when that one was declared down, or wins over the peer's because its clock went back: the
    /// peer must be told to take a later one.
    pub(crate) fn learn(&mut self, now_ms: u64, id: SwimId) -> Option<SwimId> {
        if id.site == self.own().site {
            return None;
        }
        self.apply(now_ms, Member::alive(id));
        let mut known = self.foca.iter_membership_state();
        let known = known.find(|m| m.id().site == id.site)?;
        (*known.id() != id || known.state() == State::Down).then_some(*known.id())
    }

    /// The process at `site` is known to be gone, or the site is no member any more.
    pub(crate) fn declare_down(&mut self, now_ms: u64, site: SiteId) {
        let known = self.foca.iter_members().find(|m| m.id().site == site);
        if let Some(id) = known.map(|m| *m.id()) {
            self.apply(now_ms, Member::down(id));
        }
    }

    fn apply(&mut self, now_ms: u64, member: Member<SwimId>) {
        self.sink.now_ms = now_ms;
        let update = std::iter::once(member);
        if let Err(error) = self.foca.apply_many(update, true, &mut self.sink) {
            tracing::debug!(%error, "swim_update_refused");
        }
    }

    /// A peer says that our life `id` is over: take a later one, unless this is one already.
    pub(crate) fn renew(&mut self, now_ms: u64, id: SwimId) {
        let current = id.site == self.own().site && id.epoch >= self.own().epoch;
        let Some(next) = id.renew().filter(|_| current) else {
            return;
        };
        self.sink.now_ms = now_ms;
        if let Err(error) = self.foca.change_identity(next, &mut self.sink) {
            tracing::debug!(%error, "swim_renewal_failed");
        }
        // A changed identity starts disconnected; what was known to be alive still is, and this
        // makes probing go on.
        let alive: Vec<_> = self.foca.iter_members().cloned().collect();
        if let Err(error) = self
            .foca
            .apply_many(alive.into_iter(), false, &mut self.sink)
        {
            tracing::debug!(%error, "swim_update_refused");
        }
        self.sink.verdicts.push(Verdict::Renewed(next));
    }

    /// Whether `site` is suspected at the moment.
    pub(crate) fn is_suspect(&self, site: SiteId) -> bool {
        let known = self.foca.iter_members().find(|m| m.id().site == site);
        known.is_some_and(|m| m.state() == State::Suspect)
    }

    /// Whether `site` is alive or only suspected.
    pub(crate) fn is_alive(&self, site: SiteId) -> bool {
        self.foca.iter_members().any(|m| m.id().site == site)
    }

    /// Datagrams to be sent.
    pub(crate) fn take_datagrams(&mut self) -> Vec<(SiteId, Bytes)> {
        std::mem::take(&mut self.sink.datagrams)
    }

    /// What was found out.
    pub(crate) fn take_verdicts(&mut self) -> Vec<Verdict> {
        std::mem::take(&mut self.sink.verdicts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Cookie;
    use crate::name::NodeName;

    /// Detectors joined by a perfect network that can silence some of them.
    struct Field {
        nodes: Vec<Failure>,
        silent: Vec<bool>,
        now_ms: u64,
        verdicts: Vec<Vec<Verdict>>,
    }

    fn id(site: usize) -> SwimId {
        SwimId {
            site: SiteId([site as u8; 16]),
            epoch: 1,
        }
    }

    impl Field {
        fn new(count: usize) -> Self {
            let name = NodeName::parse("a@b").expect("valid");
            let config = Config::new(name, Cookie::new("c"));
            let nodes = (0..count).map(|site| Failure::new(id(site), &config, site as u64));
            let mut field = Self {
                nodes: nodes.collect(),
                silent: vec![false; count],
                now_ms: 0,
                verdicts: vec![Vec::new(); count],
            };
            for (site, other) in (0..count).flat_map(|a| (0..count).map(move |b| (a, b))) {
                field.nodes[site].learn(0, id(other));
            }
            field.exchange();
            field
        }

        fn exchange(&mut self) {
            loop {
                let mut any = false;
                for from in 0..self.nodes.len() {
                    for (to, data) in self.nodes[from].take_datagrams() {
                        let to = usize::from(to.0[0]);
                        if !self.silent[from] && !self.silent[to] {
                            self.nodes[to].received(self.now_ms, &data);
                            any = true;
                        }
                    }
                    let verdicts = self.nodes[from].take_verdicts();
                    self.verdicts[from].extend(verdicts);
                }
                if !any {
                    return;
                }
            }
        }

        fn run(&mut self, ms: u64) {
            for _ in 0..ms / 10 {
                self.now_ms += 10;
                for node in &mut self.nodes {
                    node.tick(self.now_ms);
                }
                self.exchange();
            }
        }

        fn downs(&self, node: usize) -> usize {
            self.verdicts[node]
                .iter()
                .filter(|v| matches!(v, Verdict::Down(_) | Verdict::SaidDown(_)))
                .count()
        }
    }

    #[test]
    fn a_silent_member_is_down_within_five_seconds_everywhere() {
        for count in 2..=7 {
            let mut field = Field::new(count);
            field.run(3_000);
            assert_eq!((0..count).map(|n| field.downs(n)).sum::<usize>(), 0);
            field.silent[0] = true;
            field.run(5_000);
            for node in 1..count {
                assert!(
                    !field.nodes[node].is_alive(SiteId([0; 16])),
                    "{node} of {count}"
                );
            }
        }
    }

    #[test]
    fn a_pause_of_a_second_is_never_noticed() {
        let mut field = Field::new(3);
        for _ in 0..10 {
            field.run(1_500);
            field.silent[1] = true;
            field.run(1_000);
            field.silent[1] = false;
        }
        assert_eq!((0..3).map(|n| field.downs(n)).sum::<usize>(), 0);
    }

    #[test]
    fn a_suspicion_nobody_decides_is_dropped_and_a_later_death_is_seen() {
        let mut field = Field::new(3);
        field.run(1_000);
        // As if heard from a member that took a new life since: nobody's timer will decide it.
        let suspect = Member::new(id(1), 0, State::Suspect);
        let failure = &mut field.nodes[0];
        failure
            .foca
            .apply_many(std::iter::once(suspect), false, &mut failure.sink)
            .expect("known");
        assert!(field.nodes[0].is_suspect(SiteId([1; 16])));
        field.run(10_000);
        assert!(!field.nodes[0].is_suspect(SiteId([1; 16])));
        assert_eq!(field.downs(0), 0);
        field.silent[1] = true;
        field.run(5_000);
        assert!(!field.nodes[0].is_alive(SiteId([1; 16])));
    }

    #[test]
    fn after_a_split_new_lives_bring_everybody_back() {
        let mut field = Field::new(2);
        field.run(1_000);
        field.silent[0] = true;
        field.run(6_000);
        field.silent[0] = false;
        for (node, other) in [(0, 1), (1, 0)] {
            let own = field.nodes[other].own();
            if let Some(over) = field.nodes[node].learn(field.now_ms, own) {
                let now_ms = field.now_ms;
                field.nodes[other].renew(now_ms, over);
                let renewed = field.nodes[other].own();
                assert_eq!(field.nodes[node].learn(now_ms, renewed), None);
            }
        }
        field.exchange();
        assert!(field.nodes[0].is_alive(SiteId([1; 16])));
        assert!(field.nodes[1].is_alive(SiteId([0; 16])));
        field.run(10_000);
        assert!(field.nodes[0].is_alive(SiteId([1; 16])));
        field.silent[1] = true;
        field.run(5_000);
        assert!(
            !field.nodes[0].is_alive(SiteId([1; 16])),
            "probing goes on after a renewal"
        );
    }
}
