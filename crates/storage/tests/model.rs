//! Random histories: engine, memory twin and a naive model must agree at every step, across
//! crashes.

use std::collections::BTreeMap;
use std::fs;

use bytes::Bytes;
use dunlin_storage::engine::{Engine, FILE_NAME};
use dunlin_storage::memory::{CrashKeep, Memory};
use dunlin_storage::{Batch, Op, Store, TableId, snapshot};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Write(Batch),
    Sync,
    /// The process dies with unsynced batches; the file stays as it is.
    Crash,
    /// An orderly stop and start.
    Restart,
    /// All tables go through a snapshot and back.
    Copy,
}

/// The simplest thing that could be right: rows in one map, batches applied one by one.
#[derive(Clone, Default, PartialEq, Debug)]
struct Naive(BTreeMap<(TableId, Bytes), Bytes>);

impl Naive {
    fn apply(&mut self, op: Op) {
        match op {
            Op::Put { table, key, value } => {
                self.0.insert((table, key), value);
            }
            Op::Delete { table, key } => {
                self.0.remove(&(table, key));
            }
            Op::Clear { table } => self.0.retain(|(name, _), _| *name != table),
            Op::Rename { from, to } => {
                if from != to {
                    self.0.retain(|(name, _), _| *name != to);
                    let rename = |name| if name == from { to.clone() } else { name };
                    let rows = std::mem::take(&mut self.0).into_iter();
                    self.0 = rows
                        .map(|((name, key), value)| ((rename(name), key), value))
                        .collect();
                }
            }
        }
    }

    fn of(store: &dyn Store) -> Self {
        let mut rows = BTreeMap::new();
        for table in store.tables().expect("a healthy store reads") {
            let all = store
                .scan(&table, b"", usize::MAX)
                .expect("a healthy store reads");
            assert!(!all.is_empty(), "{table} is listed without a row");
            for (key, value) in all {
                let got = store.get(&table, &key).expect("a healthy store reads");
                assert_eq!(got.as_ref(), Some(&value), "get and scan differ");
                rows.insert((table.clone(), key), value);
            }
        }
        Self(rows)
    }

    fn scan(&self, table: &TableId, from: &[u8], limit: usize) -> Vec<(Bytes, Bytes)> {
        let rows = self
            .0
            .iter()
            .filter(|((name, key), _)| name == table && key[..] >= *from);
        rows.take(limit)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect()
    }
}

fn table() -> impl Strategy<Value = TableId> {
    (0..4_u8).prop_map(|index| TableId::new(format!("t/{index}")).expect("a valid name"))
}

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        8 => "[ab]{0,2}".prop_map(Bytes::from),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let value = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..4),
        1 => (0..20_000_usize).prop_map(|len| vec![7; len]),
    ];
    prop_oneof![
        10 => (table(), key(), value)
            .prop_map(|(table, key, value)| Op::Put { table, key, value: value.into() }),
        4 => (table(), key()).prop_map(|(table, key)| Op::Delete { table, key }),
        1 => table().prop_map(|table| Op::Clear { table }),
        2 => (table(), table()).prop_map(|(from, to)| Op::Rename { from, to }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => prop::collection::vec(op(), 0..8).prop_map(|ops| Step::Write(Batch { ops })),
        4 => Just(Step::Sync),
        1 => Just(Step::Crash),
        1 => Just(Step::Restart),
        1 => Just(Step::Copy),
    ]
}

/// The file as a killed process leaves it, in a directory of its own.
fn crash(engine: Engine, dir: &mut tempfile::TempDir) -> Engine {
    let next = tempfile::tempdir().expect("a temporary directory");
    fs::copy(dir.path().join(FILE_NAME), next.path().join(FILE_NAME)).expect("a copy");
    drop(engine);
    *dir = next;
    Engine::open(dir.path()).expect("what a crash leaves opens")
}

fn copy(store: &mut dyn Store) {
    let mut bytes = Vec::new();
    let written = snapshot::write(store, &mut bytes).expect("a vector takes all");
    let restored = snapshot::restore(store, bytes.as_slice()).expect("a whole snapshot");
    assert_eq!(written, restored);
}

fn run(steps: Vec<Step>) {
    let mut dir = tempfile::tempdir().expect("a temporary directory");
    let mut engine = Engine::open(dir.path()).expect("a fresh directory opens");
    let mut memory = Memory::new();
    let (mut current, mut durable) = (Naive::default(), Naive::default());
    for step in steps {
        match step {
            Step::Write(batch) => {
                batch.ops.iter().cloned().for_each(|op| current.apply(op));
                memory.write(batch.clone()).expect("a valid batch");
                engine.write(batch).expect("a valid batch");
            }
            Step::Sync => {
                memory.sync().expect("a healthy store syncs");
                engine.sync().expect("a healthy store syncs");
                durable = current.clone();
            }
            Step::Crash => {
                memory.crash(CrashKeep::Nothing);
                engine = crash(engine, &mut dir);
                current = durable.clone();
            }
            Step::Restart => {
                memory.crash(CrashKeep::Nothing);
                drop(engine);
                engine = Engine::open(dir.path()).expect("what was closed opens");
                current = durable.clone();
            }
            Step::Copy => {
                copy(&mut memory);
                copy(&mut engine);
                durable = current.clone();
            }
        }
        assert_eq!(Naive::of(&engine), current, "engine");
        assert_eq!(Naive::of(&memory), current, "memory");
        for from in [&b""[..], b"a", b"ab", b"b\0"] {
            let table = TableId::fixed("t/1");
            let expected = current.scan(&table, from, 2);
            assert_eq!(
                engine.scan(&table, from, 2).expect("reads"),
                expected,
                "engine scan"
            );
            assert_eq!(
                memory.scan(&table, from, 2).expect("reads"),
                expected,
                "memory scan"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn engine_memory_and_model_agree(steps in prop::collection::vec(step(), 1..40)) {
        run(steps);
    }
}

proptest! {
    #[test]
    fn memory_keeps_exactly_the_prefix_asked_for(
        synced in prop::collection::vec(prop::collection::vec(op(), 0..6), 0..4),
        unsynced in prop::collection::vec(prop::collection::vec(op(), 0..6), 0..6),
        kept in 0..8_usize,
    ) {
        let mut memory = Memory::new();
        let mut expected = Naive::default();
        for ops in synced {
            ops.iter().cloned().for_each(|op| expected.apply(op));
            memory.write(Batch { ops }).expect("a valid batch");
        }
        memory.sync().expect("no fault planned");
        prop_assert_eq!(memory.unsynced_count(), 0);
        for (index, ops) in unsynced.into_iter().enumerate() {
            if index < kept {
                ops.iter().cloned().for_each(|op| expected.apply(op));
            }
            memory.write(Batch { ops }).expect("a valid batch");
        }
        memory.crash(CrashKeep::Prefix(kept));
        prop_assert_eq!(&Naive::of(&memory), &expected);
        // What survived a crash is durable: a second crash takes nothing more.
        memory.crash(CrashKeep::Nothing);
        prop_assert_eq!(&Naive::of(&memory), &expected);
    }
}
