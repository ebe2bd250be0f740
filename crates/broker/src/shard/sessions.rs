//! The shard's sessions: slots with generations, and which client identifier is where.
//!
//! A slot is reused under a raised generation, so a delivery that was on its way to a session that
//! ended meanwhile finds nobody instead of its successor.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::router::SessionKey;
use crate::session::Session;

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    session: Option<Box<Session>>,
}

/// All sessions of a shard.
#[derive(Debug)]
pub(crate) struct Sessions {
    slots: Vec<Slot>,
    free: Vec<u32>,
    hasher: FixedState,
    /// Slots by client identifier: the newest session of each.
    by_client: HashTable<u32>,
}

impl Sessions {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            hasher: FixedState::with_seed(seed),
            by_client: HashTable::new(),
        }
    }

    /// Adds a session; its client identifier points to it from now on.
    pub(crate) fn insert(&mut self, session: Session) -> SessionKey {
        let hash = self.hasher.hash_one(session.clientid());
        let older = self.slot_of(hash, session.clientid());
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let place = &mut self.slots[slot as usize];
        place.generation = place.generation.wrapping_add(1);
        let generation = place.generation;
        place.session = Some(Box::new(session));
        if let Some(older) = older
            && let Ok(entry) = self.by_client.find_entry(hash, |&s| s == older)
        {
            entry.remove();
        }
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.by_client.insert_unique(hash, slot, |&slot| {
            let session = slots[slot as usize].session.as_ref();
            session.map_or(0, |session| hasher.hash_one(session.clientid()))
        });
        SessionKey { slot, generation }
    }

    pub(crate) fn get(&self, key: SessionKey) -> Option<&Session> {
        let slot = self.slots.get(key.slot as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        slot.session.as_deref()
    }

    pub(crate) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        slot.session.as_deref_mut()
    }

    /// Takes a session out. Its client identifier is forgotten if it still points here.
    pub(crate) fn remove(&mut self, key: SessionKey) -> Option<Box<Session>> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let session = slot.session.take()?;
        self.free.push(key.slot);
        let hash = self.hasher.hash_one(session.clientid());
        if let Ok(entry) = self.by_client.find_entry(hash, |&s| s == key.slot) {
            entry.remove();
        }
        Some(session)
    }

    /// The newest session of a client.
    pub(crate) fn find(&self, clientid: &str) -> Option<SessionKey> {
        let slot = self.slot_of(self.hasher.hash_one(clientid), clientid)?;
        Some(SessionKey {
            slot,
            generation: self.slots[slot as usize].generation,
        })
    }

    fn slot_of(&self, hash: u64, clientid: &str) -> Option<u32> {
        let is_it = |&slot: &u32| {
            let session = self.slots[slot as usize].session.as_ref();
            session.is_some_and(|session| session.clientid() == clientid)
        };
        self.by_client.find(hash, is_it).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// All sessions in slot order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SessionKey, &Session)> {
        self.slots.iter().enumerate().filter_map(|(slot, place)| {
            let key = SessionKey {
                slot: slot as u32,
                generation: place.generation,
            };
            Some((key, place.session.as_deref()?))
        })
    }
}
