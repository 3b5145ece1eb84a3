//! Records: put-if-absent, compare-and-swap, aliases.

use std::collections::BTreeMap;

use cache::store::Store;
use solver::{Digest, Key, Name, OutputRecord, Put, Record, RecordStore};

use crate::support::TestStore;

fn key(n: usize) -> Key {
    Key(Digest::of(format!("key {n}").as_bytes()))
}

fn record(n: usize) -> Record {
    let output = OutputRecord { content: Digest::of(n.to_string().as_bytes()), layer: None };
    Record { outputs: BTreeMap::from([(0, output)]), created_ms: 1, took_ms: 2, name: format!("RUN {n}") }
}

async fn lookup(store: &Store, keys: &[Key]) -> Vec<Option<Record>> {
    let found = store.records().lookup(keys).await.unwrap();
    found.into_iter().map(|kept| Some(kept?.record)).collect()
}

/// A name of what was made on something of its own.
fn name(n: usize) -> Name {
    Name { key: key(n), stands_on: vec![None, Some(Digest::of(n.to_string().as_bytes()))] }
}

#[tokio::test]
async fn the_first_stays() {
    let test = TestStore::new();
    let records = test.store.records();
    assert_eq!(records.put(key(1), &[], record(1), Put::IfAbsent).await.unwrap(), record(1));
    assert_eq!(records.put(key(1), &[name(2)], record(2), Put::IfAbsent).await.unwrap(), record(1));
    let found = lookup(&test.store, &[key(2), key(3), key(1)]).await;
    assert_eq!(found, [Some(record(1)), None, Some(record(1))]);
    let kept = test.store.records().lookup(&[key(2), key(1)]).await.unwrap();
    let told: Vec<_> = kept.into_iter().map(|kept| kept.unwrap().stands_on).collect();
    assert_eq!(told, [Some(name(2).stands_on), None], "a name tells what its record was made on");
    drop(records);
    let test = test.reopen("boot-1");
    assert_eq!(lookup(&test.store, &[key(2)]).await, [Some(record(1))]);
}

#[tokio::test]
async fn replacing_compares() {
    let test = TestStore::new();
    let records = test.store.records();
    records.put(key(1), &[name(2)], record(1), Put::IfAbsent).await.unwrap();
    let lost = records.put(key(2), &[], record(3), Put::Replace(Some(record(9)))).await.unwrap();
    assert_eq!(lost, record(1));
    let lost = records.put(key(2), &[], record(3), Put::Replace(None)).await.unwrap();
    assert_eq!(lost, record(1));
    let won = records.put(key(2), &[], record(3), Put::Replace(Some(record(1)))).await.unwrap();
    assert_eq!(won, record(3));
    assert_eq!(lookup(&test.store, &[key(1)]).await, [Some(record(3))], "all names see the new record");
    let won = records.put(key(7), &[], record(4), Put::Replace(None)).await.unwrap();
    assert_eq!(won, record(4));
}

#[tokio::test]
async fn a_name_never_decides_what_is_in_force() {
    let test = TestStore::new();
    let records = test.store.records();
    let (definition, before, after) = (key(1), key(2), key(3));
    records.put(before, &[name(1)], record(1), Put::IfAbsent).await.unwrap();
    let now = records.put(after, &[name(1)], record(2), Put::IfAbsent).await.unwrap();
    assert_eq!(now, record(2), "the definition's older record is that of another content");
    let found = lookup(&test.store, &[definition, before, after]).await;
    assert_eq!(found, [Some(record(2)), Some(record(1)), Some(record(2))]);
    assert_eq!(test.store.verify().unwrap().problems, [""; 0]);
}

#[tokio::test]
async fn aliases_of_aliases_are_names_of_the_record() {
    let test = TestStore::new();
    let records = test.store.records();
    records.alias(name(2), key(1)).await.unwrap();
    assert_eq!(lookup(&test.store, &[key(2)]).await, [None], "nothing to name yet");
    records.put(key(1), &[], record(1), Put::IfAbsent).await.unwrap();
    records.alias(name(2), key(1)).await.unwrap();
    records.alias(name(3), key(2)).await.unwrap();
    records.alias(name(1), key(3)).await.unwrap();
    assert_eq!(lookup(&test.store, &[key(1), key(2), key(3)]).await, vec![Some(record(1)); 3]);
    assert_eq!(test.store.verify().unwrap().problems, [""; 0]);
}

#[test]
fn of_many_writers_one_wins() {
    let test = TestStore::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for round in 0..50 {
        let in_force: Vec<Record> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|n| {
                    let records = test.store.records();
                    scope.spawn(move || {
                        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                        runtime.block_on(records.put(key(round), &[], record(n), Put::IfAbsent)).unwrap()
                    })
                })
                .collect();
            writers.into_iter().map(|w| w.join().unwrap()).collect()
        });
        let stored = runtime.block_on(lookup(&test.store, &[key(round)])).pop().unwrap().unwrap();
        assert!(in_force.iter().all(|r| *r == stored), "{in_force:?}");
    }
}

#[test]
fn of_many_replacers_one_wins() {
    let test = TestStore::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for round in 0..50 {
        let old = record(100);
        runtime.block_on(test.store.records().put(key(round), &[], old.clone(), Put::IfAbsent)).unwrap();
        let winners: usize = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|n| {
                    let (records, old) = (test.store.records(), old.clone());
                    scope.spawn(move || {
                        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                        let put = records.put(key(round), &[], record(n), Put::Replace(Some(old)));
                        usize::from(runtime.block_on(put).unwrap() == record(n))
                    })
                })
                .collect();
            writers.into_iter().map(|w| w.join().unwrap()).sum()
        });
        assert_eq!(winners, 1);
    }
}
