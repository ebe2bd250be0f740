//! Against maps of the standard library.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn write(slots: &mut Slots, id: u32, bytes: usize, seed: u8) {
    for (at, byte) in slots.get_mut(id)[..bytes].iter_mut().enumerate() {
        *byte = seed.wrapping_add(at as u8);
    }
}

fn is(slots: &Slots, id: u32, bytes: usize, seed: u8) -> bool {
    let found = slots.get(id);
    let written = found[..bytes].iter().enumerate();
    written
        .into_iter()
        .all(|(at, byte)| *byte == seed.wrapping_add(at as u8))
        && found[bytes..].iter().all(|byte| *byte == 0)
}

#[test]
fn every_length_has_a_place_that_is_hardly_longer() {
    let mut slots = Slots::new();
    for bytes in 0..=SHARED_BYTES_MAX + 50 {
        let id = slots.insert(bytes);
        let got = slots.get(id).len();
        let spare = match bytes {
            0..PLACE_BYTES_MIN => PLACE_BYTES_MIN - bytes,
            PLACE_BYTES_MIN..=FINE_BYTES_MAX => FINE_STEP - 1,
            _ if bytes <= SHARED_BYTES_MAX => COARSE_STEP - 1,
            _ => 0,
        };
        assert!(got >= bytes && got - bytes <= spare, "{bytes}: {got}");
    }
    assert_eq!(class_of(SHARED_BYTES_MAX), CLASSES - 1);
    assert!(place_bytes(CLASSES - 1) == SHARED_BYTES_MAX && size_of::<Page>() == 32);
}

#[test]
fn pages_are_given_back_and_taken_again() {
    let mut slots = Slots::new();
    let keeper = slots.insert(900);
    let pages = |slots: &Slots| slots.pages.len() - slots.vacant.len();
    let short: Vec<u32> = (0..10_000).map(|_| slots.insert(30)).collect();
    let full = pages(&slots);
    assert_eq!(full, 1 + 10_000_usize.div_ceil(PAGE_BYTES / 32));
    for id in &short {
        slots.remove(*id);
    }
    assert_eq!(pages(&slots), 2, "one page of each length stays");
    for _ in 0..10_000 {
        slots.insert(60);
    }
    assert!(slots.pages.len() <= 2 * full, "vacant numbers are used");
    slots.remove(keeper);
    assert!(slots.find(keeper).is_some(), "what it has left");
    assert!(slots.find(u32::MAX - 2).is_none());
}

#[test]
fn a_record_that_comes_and_goes_keeps_its_page() {
    let mut slots = Slots::new();
    slots.insert(500);
    let first = slots.insert(20);
    slots.remove(first);
    assert_eq!(slots.insert(20), first);
}

#[derive(Clone, Debug)]
enum Step {
    Insert(usize, u8),
    Remove(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lengths = prop_oneof![4 => 0..80_usize, 1 => 200..1_200_usize, 1 => Just(5_000_usize)];
    let step = prop_oneof![
        3 => (lengths, any::<u8>()).prop_map(|(bytes, seed)| Step::Insert(bytes, seed)),
        2 => any::<prop::sample::Index>().prop_map(Step::Remove),
    ];
    prop::collection::vec(step, 0..600)
}

proptest! {
    #[test]
    fn records_are_what_was_written(steps in steps()) {
        let mut slots = Slots::new();
        let mut model: BTreeMap<u32, (usize, u8)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Insert(bytes, seed) => {
                    let id = slots.insert(bytes);
                    prop_assert!(slots.get(id).iter().all(|byte| *byte == 0));
                    write(&mut slots, id, bytes, seed);
                    prop_assert!(model.insert(id, (bytes, seed)).is_none(), "{id} is in use");
                }
                Step::Remove(at) => {
                    if model.is_empty() {
                        continue;
                    }
                    let id = *model.keys().nth(at.index(model.len())).expect("it has so many");
                    model.remove(&id);
                    slots.remove(id);
                }
            }
            prop_assert_eq!(slots.len(), model.len());
        }
        for (id, (bytes, seed)) in &model {
            prop_assert!(is(&slots, *id, *bytes, *seed));
            prop_assert_eq!(slots.find(*id), Some(slots.get(*id)));
        }
        let ids: Vec<u32> = slots.ids().collect();
        let distinct: BTreeSet<u32> = ids.iter().copied().collect();
        prop_assert_eq!(ids.len(), distinct.len());
        prop_assert!(model.keys().all(|id| distinct.contains(id)));
    }
}
