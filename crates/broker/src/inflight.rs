//! Messages of a session that were sent and are not acknowledged: the window.
//!
//! Kept in the order of sending, because that is the order of resending [MQTT-4.6.0-1]. A packet
//! identifier is free again only when its exchange is over, whatever the client does. Most sessions
//! have nothing in flight, so an empty window is 16 bytes.

use std::collections::VecDeque;
use std::num::NonZeroU16;

use crate::queue::Queued;

/// An acknowledgement that fits nothing in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckFault {
    /// No such packet identifier (`packets.*.missed`).
    Missed,
    /// The exchange with this identifier awaits another packet (`packets.*.inuse`).
    InUse,
}

/// What has to be sent again when a session resumes.
#[derive(Clone, Copy, Debug)]
pub enum Resend<'a> {
    /// PUBLISH with DUP.
    Publish(u16, &'a Queued),
    /// PUBREL.
    Pubrel(u16),
}

/// An exchange as it moves with its session to another owner.
#[derive(Clone, Debug)]
pub enum Exchange {
    /// PUBLISH was sent, PUBACK or PUBREC is awaited.
    Sent(u16, Queued),
    /// PUBREL was sent, PUBCOMP is awaited.
    Released(u16),
}

#[derive(Debug)]
enum State {
    Sent(Queued),
    Released,
    /// Acknowledged before an older one: kept so that places follow from identifiers.
    Over,
}

#[derive(Debug)]
struct Slot {
    state: State,
    sent_mono_ms: u64,
    packet_id: u16,
}

/// Slots that are over and wait behind a live one, beyond as many as are live, before they are
/// cleared out: enough for clearing to cost nothing, few enough for a client that never
/// acknowledges one message to hold no memory for the others.
const OVER_SLACK: usize = 32;

#[derive(Debug)]
struct Window {
    /// The first is never `Over`.
    slots: VecDeque<Slot>,
    live: usize,
    /// Whether identifiers grow from the first on, counted round past 0. They do not behind one
    /// that was still in use when its turn came again, or after a move.
    in_turn: bool,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            slots: VecDeque::new(),
            live: 0,
            in_turn: true,
        }
    }
}

impl Window {
    fn enter(&mut self, slot: Slot) {
        if let (Some(first), Some(last)) = (self.slots.front(), self.slots.back())
            && (slot.packet_id != after(last.packet_id) || slot.packet_id == first.packet_id)
        {
            let from_first = |id| distance(first.packet_id, id);
            self.in_turn &= from_first(slot.packet_id) > from_first(last.packet_id);
        }
        self.slots.push_back(slot);
        self.live += 1;
    }

    fn find(&self, packet_id: u16) -> Option<usize> {
        let first = self.slots.front()?.packet_id;
        let is_it = |slot: &Slot| slot.packet_id == packet_id && !matches!(slot.state, State::Over);
        if !self.in_turn {
            return self.slots.iter().position(is_it);
        }
        let away = distance(first, packet_id);
        // Usually nothing is missing between, and the distance is the place.
        if self.slots.get(away).is_some_and(is_it) {
            return Some(away);
        }
        let at = self
            .slots
            .partition_point(|slot| distance(first, slot.packet_id) < away);
        self.slots.get(at).is_some_and(is_it).then_some(at)
    }

    /// Whether the identifier after the one given last is certain to be free: identifiers run from
    /// the first to there, and have not come round to the first.
    fn ends_before(&self, next: u16) -> bool {
        let first = self.slots.front();
        self.in_turn && first.is_none_or(|first| first.packet_id != next)
    }

    /// Ends the exchange at a place and returns what it was.
    fn finish(&mut self, at: usize) -> State {
        self.live -= 1;
        let state = if at == 0 {
            self.slots
                .pop_front()
                .map_or(State::Over, |slot| slot.state)
        } else {
            std::mem::replace(&mut self.slots[at].state, State::Over)
        };
        while matches!(
            self.slots.front(),
            Some(Slot {
                state: State::Over,
                ..
            })
        ) {
            self.slots.pop_front();
        }
        if self.slots.len() > 2 * self.live + OVER_SLACK {
            self.slots.retain(|slot| !matches!(slot.state, State::Over));
        }
        state
    }
}

/// The identifier whose turn is next; 0 is none.
fn after(id: u16) -> u16 {
    if id == u16::MAX { 1 } else { id + 1 }
}

/// How many identifiers after `first` the other one has its turn: they run 1..=65535 and round.
fn distance(first: u16, id: u16) -> usize {
    let (first, id) = (usize::from(first), usize::from(id));
    if id >= first {
        id - first
    } else {
        usize::from(u16::MAX) - first + id
    }
}

/// The window. See the module.
#[derive(Debug, Default)]
pub struct Inflight {
    window: Option<Box<Window>>,
    /// The identifier given last.
    last_id: u16,
}

impl Inflight {
    /// An empty window.
    pub const fn new() -> Self {
        Self {
            window: None,
            last_id: 0,
        }
    }

    /// Exchanges that are not over.
    #[inline]
    pub fn len(&self) -> usize {
        self.window.as_ref().map_or(0, |window| window.live)
    }

    /// Whether nothing is in flight.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.window.is_none()
    }

    /// Whether a window of `max` (Receive Maximum) takes no more.
    #[inline]
    pub fn is_full(&self, max: u16) -> bool {
        self.len() >= usize::from(max)
    }

    /// The packet identifier of the next message to be [entered](Self::send); `None` if all are in
    /// use.
    #[inline]
    pub fn next_id(&self) -> Option<NonZeroU16> {
        let mut id = after(self.last_id);
        if self
            .window
            .as_ref()
            .is_none_or(|window| window.ends_before(id))
        {
            return NonZeroU16::new(id);
        }
        // The identifiers have run round to one that is stuck.
        for _ in 0..u16::MAX {
            if self.find(id).is_none() {
                return NonZeroU16::new(id);
            }
            id = after(id);
        }
        None
    }

    /// Enters a message that is being sent under the identifier that [`Self::next_id`] gave.
    pub fn send(&mut self, packet_id: NonZeroU16, queued: Queued, mono_ms: u64) {
        debug_assert!(
            self.find(packet_id.get()).is_none(),
            "two under one identifier"
        );
        self.last_id = packet_id.get();
        self.enter(packet_id.get(), State::Sent(queued), mono_ms);
    }

    /// PUBACK: the message is the client's.
    pub fn puback(&mut self, packet_id: u16) -> Result<Queued, AckFault> {
        let at = self.find(packet_id).ok_or(AckFault::Missed)?;
        match self.slot(at).state {
            State::Sent(ref queued) if queued.qos as u8 <= 1 => {}
            _ => return Err(AckFault::InUse),
        }
        match self.finish(at) {
            State::Sent(queued) => Ok(queued),
            State::Released | State::Over => Err(AckFault::InUse),
        }
    }

    /// PUBREC: the message is the client's, PUBREL has to be sent. Again for one that came twice:
    /// [`AckFault::InUse`], where PUBREL is the answer too.
    pub fn pubrec(&mut self, packet_id: u16, mono_ms: u64) -> Result<Queued, AckFault> {
        let at = self.find(packet_id).ok_or(AckFault::Missed)?;
        let slot = self.slot(at);
        match std::mem::replace(&mut slot.state, State::Released) {
            State::Sent(queued) if queued.qos as u8 == 2 => {
                slot.sent_mono_ms = mono_ms;
                Ok(queued)
            }
            other => {
                slot.state = other;
                Err(AckFault::InUse)
            }
        }
    }

    /// PUBCOMP: the exchange is over.
    pub fn pubcomp(&mut self, packet_id: u16) -> Result<(), AckFault> {
        let at = self.find(packet_id).ok_or(AckFault::Missed)?;
        if !matches!(self.slot(at).state, State::Released) {
            return Err(AckFault::InUse);
        }
        self.finish(at);
        Ok(())
    }

    /// PUBREC or PUBCOMP with an error: the client wants no more of it [MQTT-4.3.3-4]. Returns
    /// the message if it was not yet the client's.
    pub fn abandon(&mut self, packet_id: u16) -> Option<Queued> {
        let at = self.find(packet_id)?;
        match self.finish(at) {
            State::Sent(queued) => Some(queued),
            State::Released | State::Over => None,
        }
    }

    /// Everything in flight in the order of sending: what a resumed session sends again.
    pub fn resend(&self) -> impl Iterator<Item = Resend<'_>> {
        self.slots().filter_map(|slot| match &slot.state {
            State::Sent(queued) => Some(Resend::Publish(slot.packet_id, queued)),
            State::Released => Some(Resend::Pubrel(slot.packet_id)),
            State::Over => None,
        })
    }

    /// Calls `again` for what was sent before `mono_ms - interval_ms` and marks it sent now.
    /// Returns when the next one is due.
    pub fn retry(
        &mut self,
        mono_ms: u64,
        interval_ms: u64,
        mut again: impl FnMut(Resend<'_>),
    ) -> Option<u64> {
        let mut next = None;
        let slots = self
            .window
            .iter_mut()
            .flat_map(|window| window.slots.iter_mut());
        for slot in slots {
            let due = slot.sent_mono_ms.saturating_add(interval_ms);
            let resend = match &slot.state {
                State::Sent(queued) => Resend::Publish(slot.packet_id, queued),
                State::Released => Resend::Pubrel(slot.packet_id),
                State::Over => continue,
            };
            if due <= mono_ms {
                again(resend);
                slot.sent_mono_ms = mono_ms;
            }
            let due = slot.sent_mono_ms.saturating_add(interval_ms);
            next = Some(next.map_or(due, |next: u64| next.min(due)));
        }
        next
    }

    /// Takes everything, in order, to move it or to give it to others.
    pub fn take(&mut self) -> impl Iterator<Item = Exchange> + use<> {
        let slots = self
            .window
            .take()
            .map_or_else(VecDeque::new, |window| window.slots);
        slots.into_iter().filter_map(|slot| match slot.state {
            State::Sent(queued) => Some(Exchange::Sent(slot.packet_id, queued)),
            State::Released => Some(Exchange::Released(slot.packet_id)),
            State::Over => None,
        })
    }

    /// Enters an exchange that came with a moved session, behind those already here. False, and
    /// nothing entered, if its identifier is 0 or in use.
    pub fn restore(&mut self, exchange: Exchange, mono_ms: u64) -> bool {
        let (packet_id, state) = match exchange {
            Exchange::Sent(packet_id, queued) => (packet_id, State::Sent(queued)),
            Exchange::Released(packet_id) => (packet_id, State::Released),
        };
        if packet_id == 0 || self.find(packet_id).is_some() {
            return false;
        }
        self.last_id = packet_id;
        self.enter(packet_id, state, mono_ms);
        true
    }

    fn enter(&mut self, packet_id: u16, state: State, sent_mono_ms: u64) {
        let window = self.window.get_or_insert_default();
        window.enter(Slot {
            state,
            sent_mono_ms,
            packet_id,
        });
    }

    fn finish(&mut self, at: usize) -> State {
        let Some(window) = &mut self.window else {
            return State::Over;
        };
        let state = window.finish(at);
        if window.live == 0 {
            self.window = None;
        }
        state
    }

    fn find(&self, packet_id: u16) -> Option<usize> {
        self.window.as_ref()?.find(packet_id)
    }

    fn slot(&mut self, at: usize) -> &mut Slot {
        let window = self.window.as_mut().expect("a place was found in it");
        &mut window.slots[at]
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.window.iter().flat_map(|window| window.slots.iter())
    }
}

#[cfg(test)]
mod tests {
    use dunlin_mqtt::QoS;
    use proptest::prelude::*;

    use super::*;
    use crate::message::{Head, Message, Parts};

    fn queued(qos: QoS, text: &str) -> Queued {
        let parts = Parts {
            topic: "t",
            payload: text.as_bytes(),
            ..Parts::default()
        };
        let message = Message::new(parts, Head::default());
        Queued {
            message,
            group: None,
            sub_id: 0,
            qos,
            retain: false,
        }
    }

    fn send(inflight: &mut Inflight, queued: Queued, mono_ms: u64) -> u16 {
        let id = inflight.next_id().expect("an identifier is free");
        inflight.send(id, queued, mono_ms);
        id.get()
    }

    fn one(inflight: &mut Inflight) -> u16 {
        send(inflight, queued(QoS::AtLeastOnce, "1"), 0)
    }

    fn two(inflight: &mut Inflight) -> u16 {
        send(inflight, queued(QoS::ExactlyOnce, "2"), 0)
    }

    fn order(inflight: &Inflight) -> Vec<(u16, bool)> {
        let row = |resend| match resend {
            Resend::Publish(id, _) => (id, true),
            Resend::Pubrel(id) => (id, false),
        };
        inflight.resend().map(row).collect()
    }

    #[test]
    fn an_empty_window_is_small() {
        assert!(size_of::<Inflight>() <= 16);
    }

    #[test]
    fn qos1_ends_with_puback_and_qos2_takes_two_steps() {
        let mut inflight = Inflight::new();
        let (a, b) = (one(&mut inflight), two(&mut inflight));
        assert_eq!((a, b), (1, 2));
        assert!(inflight.is_full(2) && !inflight.is_full(3));
        assert_eq!(inflight.pubrec(a, 0).err(), Some(AckFault::InUse));
        assert_eq!(inflight.puback(b).err(), Some(AckFault::InUse));
        assert_eq!(inflight.pubcomp(b).err(), Some(AckFault::InUse));
        assert_eq!(inflight.puback(9).err(), Some(AckFault::Missed));
        assert!(inflight.puback(a).is_ok());
        assert_eq!(inflight.puback(a).err(), Some(AckFault::Missed));
        assert_eq!(order(&inflight), [(b, true)]);
        assert!(inflight.pubrec(b, 0).is_ok());
        assert_eq!(inflight.pubrec(b, 0).err(), Some(AckFault::InUse));
        assert_eq!(order(&inflight), [(b, false)]);
        assert_eq!(inflight.pubcomp(b), Ok(()));
        assert!(inflight.is_empty());
    }

    #[test]
    fn order_survives_acknowledgements_out_of_order() {
        let mut inflight = Inflight::new();
        let ids: Vec<u16> = (0..6).map(|_| one(&mut inflight)).collect();
        for id in [ids[1], ids[3], ids[4]] {
            assert!(inflight.puback(id).is_ok());
        }
        assert_eq!(
            order(&inflight),
            [(ids[0], true), (ids[2], true), (ids[5], true)]
        );
        assert_eq!(inflight.len(), 3);
        assert!(inflight.puback(ids[0]).is_ok());
        assert!(inflight.puback(ids[5]).is_ok());
        assert!(inflight.abandon(ids[2]).is_some());
        assert!(inflight.abandon(ids[2]).is_none());
        assert!(inflight.is_empty());
    }

    #[test]
    fn identifiers_run_round_past_one_that_is_stuck() {
        let mut inflight = Inflight::new();
        let stuck = one(&mut inflight);
        let mut seen = 0_u32;
        for _ in 0..200_000 {
            let id = one(&mut inflight);
            assert!(id != 0 && id != stuck);
            assert!(inflight.puback(id).is_ok());
            seen += u32::from(id == u16::MAX);
            if seen == 1 && id == u16::MAX {
                let next = one(&mut inflight);
                assert_eq!(next, 2, "0 is no identifier and 1 is in use");
                assert!(inflight.puback(next).is_ok());
            }
        }
        assert_eq!(order(&inflight), [(stuck, true)]);
        let slots = inflight
            .window
            .as_ref()
            .map_or(0, |window| window.slots.len());
        assert!(slots <= OVER_SLACK + 2, "{slots} slots for one message");
    }

    #[test]
    fn all_identifiers_can_be_in_flight_but_not_one_more() {
        let mut inflight = Inflight::new();
        for _ in 0..u16::MAX {
            one(&mut inflight);
        }
        assert_eq!(inflight.next_id(), None);
        assert!(inflight.puback(777).is_ok());
        assert_eq!(one(&mut inflight), 777);
        assert!(inflight.puback(777).is_ok(), "found although out of turn");
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn the_window_is_a_list(
            start in prop_oneof![Just(0_u16), Just(65_500_u16)],
            ops in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..400),
        ) {
            let mut inflight = Inflight { last_id: start, ..Inflight::new() };
            let mut model: Vec<u16> = Vec::new();
            for (send, which) in ops {
                if send || model.is_empty() {
                    let id = one(&mut inflight);
                    prop_assert!(!model.contains(&id));
                    model.push(id);
                } else {
                    let id = model.remove(which.index(model.len()));
                    prop_assert!(inflight.puback(id).is_ok());
                    prop_assert_eq!(inflight.puback(id).err(), Some(AckFault::Missed));
                }
                let ids: Vec<u16> = order(&inflight).into_iter().map(|(id, _)| id).collect();
                prop_assert_eq!(&ids, &model);
                prop_assert_eq!(inflight.len(), model.len());
            }
        }
    }

    #[test]
    fn a_moved_window_keeps_order_state_and_identifiers() {
        let mut inflight = Inflight::new();
        let (a, b, c) = (one(&mut inflight), two(&mut inflight), one(&mut inflight));
        inflight.pubrec(b, 0).expect("b was sent");
        inflight.puback(a).expect("a was sent");
        let mut moved = Inflight::new();
        for exchange in inflight.take() {
            assert!(moved.restore(exchange.clone(), 0));
            assert!(!moved.restore(exchange, 0), "its identifier is in use");
        }
        assert!(inflight.is_empty());
        assert_eq!(order(&moved), [(b, false), (c, true)]);
        assert_eq!(one(&mut moved), c + 1);
    }

    #[test]
    fn retry_takes_what_is_due_and_says_when_to_come_again() {
        let mut inflight = Inflight::new();
        assert_eq!(inflight.retry(1_000, 10, |_| ()), None);
        let a = send(&mut inflight, queued(QoS::AtLeastOnce, "a"), 100);
        let b = send(&mut inflight, queued(QoS::ExactlyOnce, "b"), 150);
        let mut again = Vec::new();
        let mut note = |resend: Resend<'_>| match resend {
            Resend::Publish(id, _) => again.push((id, true)),
            Resend::Pubrel(id) => again.push((id, false)),
        };
        assert_eq!(inflight.retry(129, 30, &mut note), Some(130));
        assert_eq!(inflight.retry(130, 30, &mut note), Some(160));
        inflight.pubrec(b, 155).expect("b was sent");
        assert_eq!(inflight.retry(185, 30, &mut note), Some(215));
        assert_eq!(again, [(a, true), (a, true), (b, false)]);
    }
}
