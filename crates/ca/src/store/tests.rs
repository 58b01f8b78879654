//! One suite for both databases.

use std::time::{Duration, SystemTime};

use enclasp_keystore::soft::SoftKey;
use enclasp_keystore::{Algorithm, SignContext};
use enclasp_pki::{Certificate, RevocationReason, Revoked, create_csr, create_root, hex, sha256};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::*;
use crate::postgres::Postgres;
use crate::{Filter, IssuedBy, Record};

/// A database, empty at first.
enum Database {
    Sqlite(TempDir),
    Postgres(Postgres),
}

impl Database {
    /// One of each kind that is here.
    fn each() -> Vec<Self> {
        let mut databases = vec![Self::Sqlite(TempDir::new().unwrap())];
        databases.extend(Postgres::start().map(Self::Postgres));
        databases
    }

    fn location(&self) -> Location {
        match self {
            Self::Sqlite(folder) => Location::Sqlite(folder.path().join("a folder's %20 file?.db")),
            Self::Postgres(postgres) => Location::Postgres(postgres.url().parse().unwrap()),
        }
    }

    async fn open(&self) -> Store {
        Store::open(&self.location(), "test").await.unwrap()
    }
}

/// 2026-01-01, to the microsecond.
fn new_year() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)
}

fn record(number: u64) -> Record {
    Record {
        serial: hex(&sha256(&number.to_be_bytes())[..16]),
        issuer: "00ff".into(),
        shard: 0,
        subject: format!("CN=device-{number}"),
        subject_alt_names: vec!["dns:a.example".parse().unwrap(), "uri:spiffe://a/b".parse().unwrap()],
        profile: if number.is_multiple_of(2) { "client" } else { "server" }.into(),
        issued_by: IssuedBy::Token,
        issued_at: new_year() + Duration::from_micros(number),
        not_before: new_year(),
        not_after: new_year() + Duration::from_secs(number),
        der: vec![0, 1, 2, 255],
        revoked: None,
    }
}

fn token(id: &str, expires: SystemTime) -> TokenRecord {
    TokenRecord {
        id: id.into(),
        secret_hash: vec![0; 32],
        common_name: "device".into(),
        subject_alt_names: vec!["dns:device.example".parse().unwrap()],
        profile: "client".into(),
        expires,
    }
}

fn key() -> SoftKey {
    SoftKey::generate("soft:name=test".parse().unwrap(), Algorithm::P256).unwrap()
}

fn root(name: &str) -> Certificate {
    let subject = format!("CN={name}").parse().unwrap();
    create_root(&key(), &subject, Duration::from_secs(86_400), SystemTime::now(), &SignContext::new("a test"))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_start_at_once_one_makes_the_schema() {
    for database in Database::each() {
        let mut openings = JoinSet::new();
        for _ in 0..8 {
            let location = database.location();
            openings.spawn(async move { Store::open(&location, "test").await });
        }
        let stores: Vec<_> = openings.join_all().await.into_iter().map(Result::unwrap).collect();
        let versions: Vec<i64> = sqlx::query_scalar("SELECT version FROM schema_version ORDER BY version")
            .fetch_all(&stores[0].read)
            .await
            .unwrap();
        assert_eq!(versions, [1, 2, 3, 4, 5, 6, 7]);
        for store in &stores {
            assert!(store.is_unused().await.unwrap());
        }
    }
}

#[tokio::test]
async fn a_newer_schema_is_left_alone() {
    for database in Database::each() {
        let store = database.open().await;
        store.write.execute("INSERT INTO schema_version (version) VALUES (1000)").await.unwrap();
        let error = Store::open(&database.location(), "test").await.unwrap_err();
        assert!(matches!(error, Error::NewerDatabase { found: 1000, .. }), "{error}");
    }
}

#[tokio::test]
async fn what_is_recorded_is_read_back() {
    for database in Database::each() {
        let store = database.open().await;
        let (first, second) = (record(1), record(2));
        store.add_certificate(&first).await.unwrap();
        store.add_token(&token("t", new_year()), SystemTime::now()).await.unwrap();
        assert!(matches!(store.spend("t", &second).await.unwrap(), Spent::Now));
        // Other handles see it, and so does the next process.
        let other = database.open().await;
        assert_eq!(other.certificate(&first.serial).await.unwrap().unwrap(), first);
        let (found, certificate) = other.token("t").await.unwrap().unwrap();
        assert_eq!(certificate.unwrap(), second);
        assert_eq!(found.subject_alt_names, token("t", new_year()).subject_alt_names);
        assert_eq!((found.expires, found.secret_hash), (new_year(), vec![0; 32]));
        assert!(other.certificate("00").await.unwrap().is_none());
        assert!(other.token("u").await.unwrap().is_none());
        // A serial number is never used twice.
        assert!(store.add_certificate(&first).await.is_err());
        assert!(matches!(
            store.spend("u", &record(3)).await.unwrap_err(),
            Error::Record { reason } if reason.contains("vanished")
        ));
        assert!(store.certificate(&record(3).serial).await.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_token_is_spent_once_by_whichever_process() {
    for database in Database::each() {
        spend_in_a_race(&database).await;
    }
}

/// The isolation that some databases have always: transactions that collide are undone, and run
/// again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn transactions_that_collide_are_run_again() {
    let Some(postgres) = Postgres::start() else { return };
    postgres.sql("ALTER DATABASE postgres SET default_transaction_isolation = 'serializable'");
    let database = Database::Postgres(postgres);
    spend_in_a_race(&database).await;
    let Database::Postgres(postgres) = &database else { unreachable!() };
    let undone = postgres.sql("SELECT xact_rollback FROM pg_stat_database WHERE datname = 'postgres'");
    assert!(undone.parse::<u64>().unwrap() > 0, "nothing collided");
}

async fn spend_in_a_race(database: &Database) {
    let stores = [database.open().await, database.open().await, database.open().await];
    for id in 0..5 {
        stores[0].add_token(&token(&format!("t{id}"), new_year()), SystemTime::now()).await.unwrap();
    }
    let mut races = JoinSet::new();
    for number in 0..60 {
        let store = stores[number % 3].clone();
        races.spawn(async move {
            let offered = record(number as u64);
            let id = format!("t{}", number % 5);
            let got = match store.spend(&id, &offered).await.unwrap() {
                Spent::Now => (true, offered),
                Spent::Before(before) => (false, *before),
            };
            (id, got)
        });
    }
    let outcomes = races.join_all().await;
    let recorded = stores[0].certificates(&Filter::default(), None, usize::MAX).await.unwrap();
    assert_eq!(recorded.len(), 5);
    for id in 0..5 {
        let id = format!("t{id}");
        let of_token: Vec<_> =
            outcomes.iter().filter(|(token, _)| *token == id).map(|(_, got)| got).collect();
        assert_eq!(of_token.iter().filter(|(now, _)| *now).count(), 1);
        assert!(of_token.iter().all(|(_, record)| *record == of_token[0].1));
        assert!(recorded.contains(&of_token[0].1));
    }
}

#[tokio::test]
async fn lists_are_in_the_order_of_issuance_and_come_in_pages() {
    for database in Database::each() {
        let store = database.open().await;
        let mut transaction = store.begin().await.unwrap();
        for number in (0..1100).rev() {
            Store::insert(&mut transaction, &record(number)).await.unwrap();
        }
        transaction.commit().await.unwrap();
        let all = store.certificates(&Filter::default(), None, usize::MAX).await.unwrap();
        assert!(
            all.iter()
                .map(|record| &record.subject)
                .eq(&(0..1100).map(|n| format!("CN=device-{n}")).collect::<Vec<_>>())
        );
        let servers = Filter { profile: Some("server".into()), ..Filter::default() };
        let page = store.certificates(&servers, Some(&all[1000]), 3).await.unwrap();
        assert_eq!(page, [record(1001), record(1003), record(1005)]);
        let one = Filter { text: Some("DEVICE-1099".into()), ..Filter::default() };
        assert_eq!(store.certificates(&one, None, 10).await.unwrap(), [record(1099)]);
        assert_eq!(store.certificates(&Filter::default(), Some(&all[1099]), 10).await.unwrap(), []);
    }
}

#[tokio::test]
async fn old_tokens_are_forgotten_and_their_certificates_are_not() {
    for database in Database::each() {
        let store = database.open().await;
        let later = new_year() + Duration::from_secs(1);
        store.add_token(&token("old", new_year()), new_year()).await.unwrap();
        store.add_token(&token("new", later), new_year()).await.unwrap();
        assert!(matches!(store.spend("old", &record(1)).await.unwrap(), Spent::Now));
        assert_eq!(store.purge_tokens(later).await.unwrap(), 1);
        assert!(store.token("old").await.unwrap().is_none());
        assert!(store.token("new").await.unwrap().is_some());
        assert!(store.certificate(&record(1).serial).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_replica_is_admitted_once() {
    for database in Database::each() {
        let store = database.open().await;
        assert_eq!(store.shared().await.unwrap(), None);
        let shared = Shared { root: root("Root"), settings: "name = \"Acme\"".into() };
        store.add_certificate(&Record { issuer: String::new(), ..record(1) }).await.unwrap();
        let first = root("First");
        store.found(&shared, &first, new_year()).await.unwrap();
        let other = Shared { root: root("Other"), settings: String::new() };
        store.found(&other, &first, new_year()).await.unwrap();
        assert_eq!(store.shared().await.unwrap().unwrap(), shared);
        let known = store.certificate(&record(1).serial).await.unwrap().unwrap();
        assert_eq!(known.issuer, first.fingerprint_hex());

        let request = create_csr(&key(), &"CN=x".parse().unwrap(), &[], &SignContext::new("a test")).unwrap();
        for _ in 0..2 {
            store.ask_to_join("a", &request, new_year()).await.unwrap();
        }
        store.ask_to_join("b", &request, new_year()).await.unwrap();
        assert_eq!(store.waiting_to_join().await.unwrap().len(), 2);
        let (second, third) = (root("Second"), root("Third"));
        let later = new_year() + Duration::from_secs(1);
        assert!(store.admit("a", &second, later).await.unwrap());
        assert!(!store.admit("a", &third, later).await.unwrap());
        assert!(!store.admit("c", &third, later).await.unwrap());
        assert!(store.turn_away("b").await.unwrap());
        assert!(!store.turn_away("a").await.unwrap());
        assert_eq!(store.joining("a").await.unwrap().unwrap().certificate.unwrap(), second);
        assert!(store.joining("b").await.unwrap().is_none());
        assert_eq!(store.issuers().await.unwrap(), [first, second]);
    }
}

#[tokio::test]
async fn records_of_the_first_version_are_kept() {
    let folder = TempDir::new().unwrap();
    let location = Location::Sqlite(folder.path().join("db"));
    let store = Store::open(&location, "test").await.unwrap();
    // As the first version left it.
    let old = "DELETE FROM schema_version WHERE version > 1; DROP TABLE authority; DROP TABLE issuer;
        DROP TABLE joining; DROP INDEX certificate_by_subject; DROP INDEX token_by_end;
        DROP INDEX certificate_by_end; DROP INDEX certificate_revoked; DROP INDEX certificate_by_revocation; DROP TABLE crl; DROP TABLE responder; DROP TABLE responder_certificate; DROP TABLE audit; DROP TABLE audit_chain; DROP TABLE audit_head; DROP TABLE approval; DROP TABLE published;
        ALTER TABLE certificate DROP COLUMN issuer; ALTER TABLE certificate DROP COLUMN shard;
        ALTER TABLE certificate DROP COLUMN revoked_at; ALTER TABLE certificate DROP COLUMN revocation_reason; DROP TABLE schema_lock;
        INSERT INTO certificate VALUES ('01', 'CN=a', '[]', 'client', 'hand', 1767225600, 1767225600, 1767225601, x'00')";
    store.write.execute(sqlx::raw_sql(old)).await.unwrap();
    store.close().await;
    let store = Store::open(&location, "test").await.unwrap();
    let known = store.certificate("01").await.unwrap().unwrap();
    assert_eq!((known.issued_at, known.not_before, known.issuer.as_str()), (new_year(), new_year(), ""));
}

#[tokio::test]
async fn records_move_whole_and_the_old_database_takes_no_more() {
    let [old @ Database::Sqlite(_), new] = &Database::each()[..] else { return };
    let (old, new) = (old.open().await, new.open().await);
    let shared = Shared { root: root("Root"), settings: "name = \"Acme\"".into() };
    old.found(&shared, &root("First"), new_year()).await.unwrap();
    let mut transaction = old.begin().await.unwrap();
    for number in 0..1001 {
        Store::insert(&mut transaction, &record(number)).await.unwrap();
    }
    transaction.commit().await.unwrap();
    for id in ["spent", "unspent", "late"] {
        old.add_token(&token(id, new_year()), new_year()).await.unwrap();
    }
    old.spend("spent", &record(2000)).await.unwrap();
    assert!(new.is_unused().await.unwrap() && !old.is_unused().await.unwrap());

    old.fence().await.unwrap();
    for refused in [
        old.add_certificate(&record(3000)).await.unwrap_err(),
        old.spend("late", &record(3000)).await.unwrap_err(),
        old.add_token(&token("later", new_year()), new_year()).await.unwrap_err(),
        old.purge_tokens(SystemTime::now()).await.unwrap_err(),
    ] {
        assert!(refused.to_string().contains("moved to another database"), "{refused}");
    }
    // However often it is begun.
    for _ in 0..2 {
        old.fence().await.unwrap();
        assert_eq!(old.copy_snapshot_to(&new).await.unwrap(), 1002);
    }
    let all =
        |store: Store| async move { store.certificates(&Filter::default(), None, usize::MAX).await.unwrap() };
    assert_eq!(all(new.clone()).await, all(old.clone()).await);
    assert_eq!(new.shared().await.unwrap().unwrap(), shared);
    assert_eq!(new.issuers().await.unwrap(), old.issuers().await.unwrap());
    assert_eq!(new.token("spent").await.unwrap().unwrap().1.unwrap(), record(2000));
    assert!(matches!(new.spend("spent", &record(3000)).await.unwrap(), Spent::Before(_)));
    assert!(matches!(new.spend("unspent", &record(3000)).await.unwrap(), Spent::Now));
}

fn revoked(number: u64, seconds: u64) -> Revoked {
    let at = new_year() + Duration::from_secs(seconds);
    Revoked { serial: record(number).serial, at, reason: RevocationReason::KeyCompromise }
}

#[tokio::test]
async fn a_certificate_is_revoked_once_and_a_crl_counts_it() {
    for database in Database::each() {
        let store = database.open().await;
        for number in 0..4 {
            store.add_certificate(&Record { shard: u32::from(number == 3), ..record(number) }).await.unwrap();
        }
        assert!(store.revoke(&revoked(1, 10)).await.unwrap());
        assert!(!store.revoke(&revoked(1, 20)).await.unwrap());
        assert!(!store.revoke(&revoked(9, 20)).await.unwrap());
        assert!(store.revoke(&revoked(2, 5)).await.unwrap());
        assert!(store.revoke(&revoked(3, 5)).await.unwrap());
        assert_eq!(
            store.certificate(&record(1).serial).await.unwrap().unwrap().revoked,
            Some(revoked(1, 10))
        );
        let listed = store.revoked("00ff", 0, new_year()).await.unwrap();
        assert_eq!(listed, [revoked(2, 5), revoked(1, 10)]);
        // Certificate 1 ends a second after the new year, and 2 two.
        let later = new_year() + Duration::from_secs(2);
        assert_eq!(store.revoked("00ff", 0, later).await.unwrap(), [revoked(2, 5)]);
        assert_eq!(store.revoked("00ee", 0, new_year()).await.unwrap(), []);

        let states = store.crl_states().await.unwrap();
        assert_eq!(
            states.iter().map(|state| (state.shard, state.changes)).collect::<Vec<_>>(),
            [(0, 2), (1, 1)]
        );
        let next = CrlState { signed_changes: 2, number: 1, this_update: later, ..states[0].clone() };
        assert!(store.crl("00ff", 0).await.unwrap().is_none());
        assert!(store.publish_crl(&next, 0, b"first").await.unwrap());
        // Another replica with the same key was slower.
        assert!(!store.publish_crl(&next, 0, b"second").await.unwrap());
        assert_eq!(store.crl("00ff", 0).await.unwrap().unwrap(), b"first");
        assert_eq!(store.crl_states().await.unwrap()[0], next);
        // One that has revoked nothing yet.
        assert!(
            store
                .publish_crl(&CrlState { number: 1, ..CrlState::unsigned("00ee", 0) }, 0, b"")
                .await
                .unwrap()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_renewal_does_not_slip_past_a_revocation() {
    for database in Database::each() {
        // Of two processes.
        let (store, other) = (database.open().await, database.open().await);
        for number in 0..20 {
            let device = |serial: u64| Record { subject: format!("CN=d{number}"), ..record(serial) };
            let (old, new) = (device(number), device(number + 100));
            let (old, new) = (
                Record { not_after: SystemTime::now() + Duration::from_secs(60), ..old },
                Record { not_after: SystemTime::now() + Duration::from_secs(60), ..new },
            );
            store.add_certificate(&old).await.unwrap();
            let renewing = {
                let (store, serial, new) = (other.clone(), old.serial.clone(), new.clone());
                tokio::spawn(async move { store.succeed(&serial, &new).await.unwrap() })
            };
            // As `Authority::revoke` does.
            let mut done = Vec::new();
            loop {
                let mut found = store.certificates_of(&old.subject, SystemTime::now()).await.unwrap();
                found.retain(|record| !done.contains(&record.serial));
                if found.is_empty() {
                    break;
                }
                for record in found {
                    let at = new_year();
                    let reason = RevocationReason::Superseded;
                    store.revoke(&Revoked { serial: record.serial.clone(), at, reason }).await.unwrap();
                    done.push(record.serial);
                }
            }
            let renewed = renewing.await.unwrap();
            assert_eq!(done.contains(&new.serial), renewed);
            assert!(!store.succeed(&old.serial, &record(number + 200)).await.unwrap());
        }
    }
}

#[tokio::test]
async fn subjects_are_found_whole() {
    let Some(database) = Database::each().pop() else { return };
    let store = database.open().await;
    let later = SystemTime::now() + Duration::from_secs(60);
    for (number, subject) in
        (0..).zip(["CN=web", "CN=web,O=Acme", "CN=WEB", "CN=webb", "CN=we_", "CN=we_,O=A", "CN=web,O=Old"])
    {
        let not_after = if subject.ends_with("Old") { new_year() } else { later };
        store
            .add_certificate(&Record { subject: subject.into(), not_after, ..record(number) })
            .await
            .unwrap();
    }
    let now = SystemTime::now();
    let found = |subject: &'static str| {
        let store = store.clone();
        async move {
            let found = store.certificates_of(subject, now).await.unwrap();
            found.into_iter().map(|record| record.subject).collect::<Vec<_>>()
        }
    };
    assert_eq!(found("CN=web").await, ["CN=web", "CN=web,O=Acme"]);
    assert_eq!(found("CN=we_").await, ["CN=we_", "CN=we_,O=A"]);
    assert_eq!(found("CN=%").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_changes_is_told_once_and_in_one_chain() {
    for database in Database::each() {
        let stores = [database.open().await, database.open().await];
        let mut writes = JoinSet::new();
        for number in 0..100 {
            let store = stores[(number % 2) as usize].clone();
            // One in ten is a repetition, which fails and spoils no other.
            let record = record(number - number / 10 % 2 * (number % 10 / 9));
            writes.spawn(async move { store.add_certificate(&record).await.is_ok() });
        }
        let done = writes.join_all().await.into_iter().filter(|done| *done).count();
        let [end] = &stores[0].chain_ends().await.unwrap()[..] else { panic!("one chain") };
        assert_eq!(end.position as usize, done);
        let records = stores[0].audit("test", 0, 1000).await.unwrap();
        let mut hash = BEGINNING.to_vec();
        for (position, told) in (1..).zip(&records) {
            hash = link(&hash, position, "test", &told.event).to_vec();
            assert_eq!((told.position, &told.hash), (position, &hash));
        }
        assert_eq!(hash, end.hash);
        let recorded = stores[0].certificates(&Filter::default(), None, usize::MAX).await.unwrap();
        assert_eq!(recorded.len(), done);
        assert!(recorded.iter().all(|record| records.iter().any(|told| told.event.contains(&record.serial))));
        // What changes nothing is not told.
        assert!(!stores[0].revoke(&revoked(999, 0)).await.unwrap());
        assert_eq!(stores[0].chain_ends().await.unwrap()[0].position, end.position);
    }
}

#[tokio::test]
async fn a_request_is_held_for_the_first_key_and_decided_once() {
    for database in Database::each() {
        let store = database.open().await;
        let later = new_year() + Duration::from_secs(60);
        for id in ["t", "u"] {
            store.add_token(&token(id, later), new_year()).await.unwrap();
        }
        let waits = ("k1".to_owned(), Decision::Waiting);
        assert_eq!(store.ask_for_approval("t", "k1").await.unwrap(), waits);
        assert_eq!(store.ask_for_approval("t", "k2").await.unwrap(), waits);
        assert_eq!(store.ask_for_approval("u", "k3").await.unwrap().1, Decision::Waiting);
        let waiting = store.waiting_for_certificates(new_year()).await.unwrap();
        let ids: Vec<_> =
            waiting.iter().map(|asked| (asked.token.id.as_str(), asked.key_sha256.as_str())).collect();
        assert_eq!(ids, [("t", "k1"), ("u", "k3")]);
        assert!(store.waiting_for_certificates(later).await.unwrap().is_empty());
        let store = store.operated_by("a person".into());
        assert!(store.decide("t", true).await.unwrap());
        assert!(!store.decide("t", false).await.unwrap() && !store.decide("v", true).await.unwrap());
        assert!(store.decide("u", false).await.unwrap());
        assert_eq!(store.ask_for_approval("t", "k1").await.unwrap().1, Decision::Approved);
        assert_eq!(store.ask_for_approval("u", "k3").await.unwrap().1, Decision::Denied);
        assert!(store.waiting_for_certificates(new_year()).await.unwrap().is_empty());
        let log = store.audit("test", 0, 100).await.unwrap();
        let decided: Vec<_> = log.iter().filter(|record| record.event.contains("a person")).collect();
        assert!(decided.len() == 2 && decided[0].event.contains("approved"), "{decided:?}");
        store.purge_tokens(later + Duration::from_secs(1)).await.unwrap();
        let left: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM approval").fetch_one(&store.read).await.unwrap();
        assert_eq!(left, 0);
    }
}

#[tokio::test]
async fn certificates_are_searched_in_pages() {
    for database in Database::each() {
        let store = database.open().await;
        let now = new_year() + Duration::from_secs(50);
        let mut transaction = store.begin().await.unwrap();
        // Each ends a second after the other; those from 50 to 62 have a fifth of their life left at most.
        for number in 0..100 {
            Store::insert(&mut transaction, &record(number)).await.unwrap();
        }
        let named = Record { subject: "CN=100% a_b\\c".into(), issued_by: IssuedBy::Hand, ..record(100) };
        Store::insert(&mut transaction, &named).await.unwrap();
        // The same subject and profile again, later.
        let renewed = Record { serial: "00ffee".into(), issued_at: record(101).issued_at, ..record(55) };
        Store::insert(&mut transaction, &renewed).await.unwrap();
        transaction.commit().await.unwrap();
        let revoked = Revoked { serial: record(60).serial, at: now, reason: RevocationReason::Superseded };
        assert!(store.revoke(&revoked).await.unwrap());

        let all = Search { text: String::new(), profile: None, state: None, replaced: true, now };
        let numbers = |records: &[Record]| {
            let number = |record: &Record| record.subject.trim_start_matches("CN=device-").to_owned();
            records.iter().map(number).collect::<Vec<_>>().join(" ")
        };
        let first = store.search(&all, None, 3).await.unwrap();
        assert_eq!(numbers(&first), "55 CN=100% a_b\\c 99");
        let place = all.place_of(&first[2]);
        assert_eq!(numbers(&store.search(&all, Some(&place), 2).await.unwrap()), "98 97");
        let last = all.place_of(&record(1));
        assert_eq!(numbers(&store.search(&all, Some(&last), 9).await.unwrap()), "0");

        let found = async |search: Search| numbers(&store.search(&search, None, 1000).await.unwrap());
        let state = |state| Search { state: Some(state), replaced: false, ..all.clone() };
        assert_eq!(found(state(State::Expiring)).await, "50 51 52 53 54 55 56 57 58 59 61 62");
        let after = state(State::Expiring).place_of(&record(58));
        let page = store.search(&state(State::Expiring), Some(&after), 2).await.unwrap();
        assert_eq!(numbers(&page), "59 61");
        let after = state(State::Expired).place_of(&record(3));
        let page = store.search(&state(State::Expired), Some(&after), 9).await.unwrap();
        assert_eq!(numbers(&page), "2 1 0");
        assert_eq!(found(state(State::Revoked)).await, "60");
        assert_eq!(store.count_found(&state(State::Valid)).await.unwrap(), 50);
        assert_eq!(store.count_found(&state(State::Expired)).await.unwrap(), 50);
        for record in store.search(&all, None, 1000).await.unwrap() {
            let state = State::of(&record, now);
            let search = Search { state: Some(state), ..all.clone() };
            assert!(store.search(&search, None, 1000).await.unwrap().contains(&record), "{record:?}");
        }

        let text = |text: &str| Search { text: text.into(), ..all.clone() };
        for (what, expected) in [
            ("100% A_B\\C", "CN=100% a_b\\c"),
            ("DEVICE-9", "99 98 97 96 95 94 93 92 91 90 9"),
            ("%", "CN=100% a_b\\c"),
            ("_", "CN=100% a_b\\c"),
            ("'", ""),
            ("\"", ""),
            ("00:FF:EE", "55"),
        ] {
            assert_eq!(found(text(what)).await, expected, "{what}");
        }
        assert_eq!(found(text(&record(7).serial)).await, "7");
        assert_eq!(store.search(&text("SPIFFE://A/B"), None, 1000).await.unwrap().len(), 102);
        let servers = Search { profile: Some("server".into()), text: "device-1".into(), ..all.clone() };
        assert_eq!(found(servers).await, "19 17 15 13 11 1");
    }
}

#[tokio::test]
async fn issuance_is_counted_by_day() {
    for database in Database::each() {
        let store = database.open().await;
        let day = Duration::from_secs(86_400);
        let mut transaction = store.begin().await.unwrap();
        for (number, issued_at) in [
            (0, new_year()),
            (1, new_year() + day - Duration::from_micros(1)),
            (2, new_year() + day),
            (3, new_year() - Duration::from_micros(1)),
            (4, new_year() - 29 * day),
            (5, new_year() - 40 * day),
        ] {
            Store::insert(&mut transaction, &Record { issued_at, ..record(number) }).await.unwrap();
        }
        transaction.commit().await.unwrap();
        let days = store.issued_by_day(new_year() + Duration::from_secs(7)).await.unwrap();
        assert_eq!(days.len(), DAYS);
        assert_eq!((days[0], days[28], days[29]), (1, 1, 2));
        assert_eq!(days.iter().sum::<u64>(), 4);
    }
}

#[tokio::test]
async fn the_audit_log_is_searched_from_its_end() {
    for database in Database::each() {
        let store = database.open().await;
        for number in 1..=5 {
            let event = serde_json::json!({ "event": if number % 2 == 0 { "Even" } else { "odd" } });
            store.note(event).await.unwrap();
        }
        let positions = async |text: &str, before: i64, limit: usize| {
            let records = store.search_audit("test", text, before, limit).await.unwrap();
            records.into_iter().map(|record| record.position).collect::<Vec<_>>()
        };
        assert_eq!(positions("", i64::MAX, 2).await, [5, 4]);
        assert_eq!(positions("", 4, 9).await, [3, 2, 1]);
        assert_eq!(positions("\"EVEN\"", i64::MAX, 9).await, [4, 2]);
        assert!(positions("_", i64::MAX, 9).await.is_empty());
        assert!(store.search_audit("other", "", i64::MAX, 9).await.unwrap().is_empty());
    }
}
