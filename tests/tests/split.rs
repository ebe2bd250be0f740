//! Every shape of a cut network, and processes that stop and go on: nobody is restarted, no client
//! of a live node is dropped, both sides serve, and what was acknowledged arrives.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dunlin_tests::{Client, Node, in_lab, until, until_eq};
use rustix::process::Signal;

use crate::field::{Field, Load, SEEN_DEAD, WHOLE, Watch};

/// How long the cuts under load last, seconds; `DUNLIN_CUT_SECONDS=60` is the checklist's. Longer
/// than a silent host may look alive.
const CUT_SECONDS: u64 = 8;

/// From the return of a link to equal views and tables everywhere.
const HEALED: Duration = Duration::from_secs(2);

/// No answer of the API of a healthy node may take longer, whatever others do.
const API_MAX: Duration = Duration::from_secs(1);

fn cut_time() -> Duration {
    let given = std::env::var("DUNLIN_CUT_SECONDS").ok();
    let seconds = given.and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(CUT_SECONDS))
}

/// Waits until a moment.
fn rest_until(moment: Instant) -> Result<()> {
    let left = moment.saturating_duration_since(Instant::now());
    until(left + Duration::from_secs(1), "time passes", || {
        Ok(Instant::now() >= moment)
    })
    .map(drop)
}

fn retained(node: &Node) -> Result<String> {
    Ok(node.ctl(&["retainer", "topics"])?.ok()?.stdout)
}

/// Names of the dashboard's users, as this node has them.
fn admins(field: &Field, node: usize) -> Result<String> {
    Ok(field.api(node)?.get("/api/v5/users")?.status(200)?.body)
}

fn alarms(field: &Field, node: usize) -> Result<String> {
    let path = "/api/v5/alarms?activated=true";
    Ok(field.api(node)?.get(path)?.status(200)?.body)
}

/// Both sides change what they hold; after the return all hold all of it.
fn write_on(field: &Field, node: usize) -> Result<()> {
    let on = &field.nodes[node];
    let name = format!("split{node}");
    on.ctl(&["admins", "add", &name, "split-1234"])?.ok()?;
    let mut client = on.connect(&format!("writer-{node}"))?;
    client.publish(&format!("kept/{node}"), "value", 1, true)?;
    client.subscribe(&format!("new/{node}"), 1)
}

fn all_hold(field: &Field, writers: &[usize]) -> Result<()> {
    for node in &field.nodes {
        for writer in writers {
            let topic = format!("kept/{writer}");
            until(WHOLE, &format!("{topic} on {}", node.name), || {
                Ok(retained(node)?.lines().any(|line| line == topic))
            })?;
            let login = || node.api().login(&format!("split{writer}"), "split-1234");
            until(WHOLE, &format!("split{writer} on {}", node.name), || {
                login().map(|_| true)
            })?;
        }
    }
    Ok(())
}

/// Cuts a field of three under load, checks both sides, and heals.
fn cut_under_load(
    field: &Field,
    (left, right): (&[usize], &[usize]),
    cut: impl Fn(&Field) -> Result<()>,
) -> Result<()> {
    let load = Load::start(&field.nodes)?;
    rest_until(Instant::now() + Duration::from_secs(1))?;
    let watch = Watch::start(field.api(left[0])?);
    let cut_at = Instant::now();
    cut(field)?;
    field.all_see(left, right, SEEN_DEAD)?;
    field.all_see(right, left, SEEN_DEAD)?;
    eprintln!("cut seen by both sides after {:?}", cut_at.elapsed());
    write_on(field, left[0])?;
    write_on(field, right[0])?;
    rest_until(cut_at + cut_time())?;
    field.open()?;
    eprintln!("whole, with equal tables, after {:?}", field.equal(HEALED)?);
    let whole_at = Instant::now();
    all_hold(field, &[left[0], right[0]])?;
    rest_until(whole_at + Duration::from_secs(1))?;
    let delivered = load.end()?;
    let slowest = watch.slowest()?;
    for publisher in 0..field.nodes.len() {
        eprintln!(
            "publisher {publisher}: {} acknowledged, longest pause {:?}",
            delivered.acked[publisher].len(),
            delivered.longest_pause(publisher)
        );
        for subscriber in 0..field.nodes.len() {
            let together = left.contains(&publisher) == left.contains(&subscriber);
            delivered.complete((publisher, subscriber), |at| {
                together || at < cut_at || at > whole_at
            })?;
        }
    }
    ensure!(slowest < API_MAX, "an API call took {slowest:?}");
    eprintln!("slowest API call {slowest:?}");
    field.none_restarted()
}

#[test]
fn p03_one_of_three_cut_off_under_load_loses_nothing() -> Result<()> {
    in_lab!(|lab| {
        let Some(field) = Field::joined(lab, 3, "")? else {
            return Ok(());
        };
        cut_under_load(&field, (&[0, 1], &[2]), |field| field.split(&[0, 1], &[2]))
    })
}

#[test]
fn p03_a_cut_that_loses_packets_one_way_loses_nothing_either() -> Result<()> {
    in_lab!(|lab| {
        let Some(field) = Field::joined(lab, 3, "")? else {
            return Ok(());
        };
        cut_under_load(&field, (&[0, 1], &[2]), |field| {
            field.cut_one_way(2, 0)?;
            field.cut_one_way(2, 1)
        })
    })
}

#[test]
fn p05_a_cut_between_two_of_three_stops_none_of_them() -> Result<()> {
    in_lab!(|lab| {
        let Some(field) = Field::joined(lab, 3, "")? else {
            return Ok(());
        };
        let load = Load::start(&field.nodes)?;
        field.cut(0, 2)?;
        let end = Instant::now() + cut_time();
        while Instant::now() < end {
            // The third sees both, so all of them show all of them.
            field.whole(Duration::ZERO).context("during the cut")?;
        }
        write_on(&field, 0)?;
        write_on(&field, 2)?;
        field.open()?;
        field.equal(HEALED)?;
        all_hold(&field, &[0, 2])?;
        let delivered = load.end()?;
        for (publisher, subscriber) in [(0, 1), (1, 0), (1, 2), (2, 1), (0, 0), (1, 1), (2, 2)] {
            delivered.complete((publisher, subscriber), |_| true)?;
        }
        field.none_restarted()
    })
}

#[test]
fn p10_a_link_that_flaps_loses_nothing() -> Result<()> {
    in_lab!(|lab| {
        let Some(field) = Field::joined(lab, 2, "")? else {
            return Ok(());
        };
        // Down for less than any repetition of TCP takes to matter, then down for most of the time.
        for (cut_ms, open_ms) in [(300, 700), (700, 300)] {
            let load = Load::start(&field.nodes)?;
            let end = Instant::now() + cut_time();
            while Instant::now() < end {
                field.cut(0, 1)?;
                rest_until(Instant::now() + Duration::from_millis(cut_ms))?;
                field.open()?;
                rest_until(Instant::now() + Duration::from_millis(open_ms))?;
            }
            field.equal(HEALED)?;
            let whole_at = Instant::now();
            rest_until(whole_at + Duration::from_secs(1))?;
            let delivered = load.end()?;
            for (publisher, subscriber) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                // A link that is hardly ever there may count as none.
                let reached = publisher == subscriber || cut_ms < open_ms;
                delivered.complete((publisher, subscriber), |at| reached || at > whole_at)?;
            }
        }
        field.none_restarted()
    })
}

#[test]
fn l13_r14_a_stopped_process_is_seen_and_slows_nobody() -> Result<()> {
    in_lab!(|lab| {
        let Some(field) = Field::joined(lab, 3, "")? else {
            return Ok(());
        };
        let mut asleep = field.nodes[2].connect("asleep")?;
        let mut awake = field.nodes[0].connect("awake")?;
        awake.subscribe("t/#", 1)?;
        let watches = [Watch::start(field.api(0)?), Watch::start(field.api(1)?)];
        let stopped = Instant::now();
        field.nodes[2].signal(Signal::STOP)?;
        field.all_see(&[0, 1], &[2], SEEN_DEAD)?;
        let seen = stopped.elapsed();
        eprintln!("a stopped process is seen after {seen:?}");
        // Clients that would be known there find their place elsewhere.
        let mut moved = Client::connect(field.nodes[1].tcp(), "moved", false)?;
        moved.publish("t/x", "while it sleeps", 1, false)?;
        ensure!(awake.receive_payload()? == "while it sleeps");
        for watch in watches {
            let slowest = watch.slowest()?;
            eprintln!("slowest API call meanwhile {slowest:?}");
            ensure!(slowest < API_MAX, "an API call took {slowest:?}");
        }
        field.nodes[2].signal(Signal::CONT)?;
        let woken = Instant::now();
        field.whole(WHOLE)?;
        eprintln!("whole after {:?}", woken.elapsed());
        asleep.ping().context("its client was not dropped")?;
        field.none_restarted()
    })
}

#[test]
fn l12_a_killed_process_is_seen_at_once() -> Result<()> {
    in_lab!(|lab| {
        let Some(field) = Field::joined(lab, 3, "")? else {
            return Ok(());
        };
        let watch = Watch::start(field.api(0)?);
        let killed = Instant::now();
        field.nodes[2].kill9()?;
        field.all_see(&[0, 1], &[2], Duration::from_secs(2))?;
        eprintln!("a killed process is seen after {:?}", killed.elapsed());
        let slowest = watch.slowest()?;
        ensure!(slowest < API_MAX, "an API call took {slowest:?}");
        field.nodes[2].start()?;
        field.whole(WHOLE).map(drop)
    })
}

const APART: &str = "cluster.autoheal = false";

/// What `cluster status` says below its first line.
fn held(node: &Node) -> Result<Vec<String>> {
    let output = node.ctl(&["cluster", "status"])?.ok()?;
    Ok(output.stdout.lines().skip(1).map(str::to_owned).collect())
}

fn says_held(node: &Node, other: &Node) -> Result<()> {
    let expected = vec![
        format!(
            "Held apart since a split, because cluster.autoheal is false: ['{}']",
            other.name
        ),
        "They can be reached; run 'emqx ctl cluster heal' on any node to merge the sides."
            .to_owned(),
    ];
    let what = format!("{} says that {} is held apart", node.name, other.name);
    until_eq(WHOLE, &what, &expected, || held(node)).map(drop)
}

#[test]
fn p09_without_autoheal_the_sides_stay_apart_until_heal_is_run() -> Result<()> {
    in_lab!(|lab| {
        let Some(field) = Field::joined(lab, 2, APART)? else {
            return Ok(());
        };
        let [node1, node2] = &field.nodes[..] else {
            return Ok(());
        };
        // A blip is no split.
        field.cut(0, 1)?;
        rest_until(Instant::now() + Duration::from_secs(1))?;
        field.open()?;
        field.whole(WHOLE)?;
        field.cut(0, 1)?;
        field.all_see(&[0], &[1], SEEN_DEAD)?;
        field.all_see(&[1], &[0], SEEN_DEAD)?;
        write_on(&field, 0)?;
        write_on(&field, 1)?;
        field.open()?;
        says_held(node1, node2)?;
        says_held(node2, node1)?;
        rest_until(Instant::now() + Duration::from_secs(3))?;
        ensure!(retained(node1)? == "kept/0\n" && retained(node2)? == "kept/1\n");
        ensure!(!admins(&field, 0)?.contains("split1"));
        ensure!(!admins(&field, 1)?.contains("split0"));
        let alarm = format!("held_apart/{}", node2.name);
        ensure!(
            alarms(&field, 0)?.contains(&alarm),
            "{}",
            alarms(&field, 0)?
        );
        let json = node1.ctl(&["cluster", "status", "--json"])?.ok()?;
        ensure!(json.stdout.contains("\"held_apart\" : ["), "{json}");
        let healed = node2.ctl(&["cluster", "heal"])?.ok()?;
        let both = dunlin_tests::node::status_line(&[&node1.name, &node2.name], &[]);
        healed.prints(&format!("Heal the cluster successfully.\n{both}\n"))?;
        field.whole(WHOLE)?;
        all_hold(&field, &[0, 1])?;
        until(WHOLE, "the alarm is over", || {
            Ok(!alarms(&field, 0)?.contains(&alarm))
        })?;
        let none = node1.ctl(&["cluster", "heal"])?.ok()?;
        none.prints(&format!("No member is held apart.\n{both}\n"))?;
        field.none_restarted()
    })
}

#[test]
fn p08_x14_in_a_split_a_deleted_user_stays_deleted_and_a_ban_holds() -> Result<()> {
    in_lab!(|lab| {
        let Some(field) = Field::joined(lab, 2, "")? else {
            return Ok(());
        };
        let [node1, node2] = &field.nodes[..] else {
            return Ok(());
        };
        node1
            .ctl(&["admins", "add", "mallory", "mallory-1"])?
            .ok()?;
        let ban = serde_json::json!({ "as": "clientid", "who": "mallory", "reason": "once" });
        let (api1, api2) = (field.api(0)?, field.api(1)?);
        api1.post("/api/v5/banned", &ban)?.status(200)?;
        // In force on the other node at once, and who is connected there stays.
        let refused = || Ok(node2.connect("mallory").is_err());
        until(
            Duration::from_secs(1),
            "the ban holds on all nodes",
            refused,
        )?;
        field.cut(0, 1)?;
        field.all_see(&[0], &[1], SEEN_DEAD)?;
        field.all_see(&[1], &[0], SEEN_DEAD)?;
        node1.ctl(&["admins", "del", "mallory"])?.ok()?;
        api1.request("DELETE", "/api/v5/banned/clientid/mallory", None)?
            .status(204)?;
        api1.post("/api/v5/banned", &ban)?.status(200)?;
        // Later than all of that, and not knowing of it.
        node2
            .ctl(&["admins", "passwd", "mallory", "mallory-2"])?
            .ok()?;
        api2.request("DELETE", "/api/v5/banned/clientid/mallory", None)?
            .status(204)?;
        ensure!(node2.connect("mallory").is_ok(), "lifted on that side");
        field.open()?;
        field.whole(WHOLE)?;
        for (index, node) in field.nodes.iter().enumerate() {
            until(WHOLE, "mallory is no admin", || {
                Ok(!admins(&field, index)?.contains("mallory"))
            })?;
            until(WHOLE, "mallory is banned", || {
                Ok(node.connect("mallory").is_err())
            })?;
        }
        until(WHOLE, "an alarm tells of the lost change", || {
            Ok(alarms(&field, 1)?.contains("concurrent_write_overwritten"))
        })?;
        let told = node2.log_tail();
        ensure!(told.contains("concurrent_write_overwritten"), "{told}");
        Ok(())
    })
}

#[test]
fn l11_l20_a_removed_member_that_returns_boots_and_says_what_happened() -> Result<()> {
    in_lab!(|lab| {
        let Some(field) = Field::joined(lab, 3, "cluster.autoclean = 6s")? else {
            return Ok(());
        };
        let [node1, _, node3] = &field.nodes[..] else {
            return Ok(());
        };
        // By hand, while it is down.
        node3.kill9()?;
        field.all_see(&[0, 1], &[2], Duration::from_secs(2))?;
        node1.ctl(&["cluster", "force-leave", &node3.name])?.ok()?;
        field.all_see(&[0, 1], &[], Duration::from_secs(2))?;
        node3.start()?;
        node3.sees(&[node3], &[], WHOLE)?;
        ensure!(
            node3.log_tail().contains("removed_from_cluster"),
            "{}",
            node3.log_tail()
        );
        node3.join(node1)?;
        field.whole(WHOLE)?;
        // By itself, after its time.
        node3.kill9()?;
        field.all_see(&[0, 1], &[], Duration::from_secs(20))?;
        node3.start()?;
        node3.sees(&[node3], &[], WHOLE)?;
        node3.join(node1)?;
        field.whole(WHOLE).map(drop)
    })
}
