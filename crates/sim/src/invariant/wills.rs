//! A will arrives once, after its delay, at everybody who has subscribed, when its client is gone;
//! and not at all when the client said goodbye, is connected, or came back in time.
//!
//! Owed by the client's node while that lives: within a moment after the connection was closed, a
//! newer one took its place or its keep-alive ran out. Owed by the others when the node died with
//! the client. Which of it happened has to be beyond doubt: between all nodes concerned nothing was
//! wrong that anybody may notice, and the client did not come back just then.

use crate::invariant::loss::{QUEUE_ENOUGH, ROUTE_MS};
use crate::oracle::{Life, Promise};
use crate::violation::Violation;
use crate::wills::{Answer, Connecting, Left, Parting, WillGot, WillId};
use crate::world::World;

/// How long a node needs to hear of what happened to a connection, and the others from it,
/// milliseconds; a blip may be in between.
const HEARD_MS: u64 = 2_000;
/// The same where nothing at all was wrong, milliseconds.
const TOLD_MS: u64 = 500;
/// How long until the others are sure that a process is gone whose host runs, milliseconds: its
/// port refuses, or its successor says so.
const REFUSED_MS: u64 = 2_500;
/// How long a client needs to read what its session has, milliseconds, and how many
/// acknowledgements one after the other that may take.
const READ_MS: u64 = 1_000;
const READ_ACKS: u64 = 20;
/// The share of the keep-alive a client may be silent: one and a half, in halves.
const KEEPALIVE_HALVES: u64 = 3;

pub(super) fn step(world: &World) -> Result<(), Violation> {
    for got in world.oracle.wills.fresh() {
        let wills = &world.oracle.wills;
        let found = wills.left(got.will).zip(wills.connection(got.will));
        let wrong = match found {
            None => Some("a will that nobody left".to_owned()),
            Some((left, connection)) => {
                withheld(world, got.will, left, connection, got.at).or_else(|| twice(world, got))
            }
        };
        if let Some(wrong) = wrong {
            let payload = got.will.payload();
            let seen = format!("client {} got {payload}: {wrong}", got.client);
            return Err(Violation::new("wills", seen));
        }
    }
    Ok(())
}

/// Why a will must not arrive at a time, if that is so.
fn withheld(
    world: &World,
    id: WillId,
    left: &Left,
    connection: &Connecting,
    at: u64,
) -> Option<String> {
    let oracle = &world.oracle;
    let death = oracle.wills.death(connection.on);
    let host = connection.on.0;
    let Some((ended, how)) = connection.end else {
        let connected = death.is_none() && !was_lost(world, connection, at);
        return connected.then(|| "its client is connected".to_owned());
    };
    let heard = |from: u64, to: u64| all_calm(world, Some(host), (from, to + HEARD_MS));
    let alive = death.is_none_or(|death| death > ended + HEARD_MS);
    if how == Parting::Clean && alive && heard(ended, ended) {
        return Some(format!("its client said goodbye at {ended} ms"));
    }
    let next = oracle.wills.next(id);
    // One of several sessions may have been told to go.
    let of = |answer: &Answer| oracle.is_split_session(id.client, answer.session);
    if connection.answered.is_none_or(|answer| of(&answer)) {
        return None;
    }
    let due = ended.min(death.unwrap_or(u64::MAX)) + left.delay_ms;
    // Whoever has the will from another node goes by the wall clock of that.
    let moved = death.is_some() || world.options.faults.evict;
    if moved && world.options.is_skewed() {
        return None;
    }
    let Some(next) = next else {
        return (at < due).then(|| format!("it is due at {due} ms"));
    };
    let back = next.answered.filter(|answer| !of(answer))?;
    let in_time = back.present && !next.clean && back.at < due && left.delay_ms > 0;
    let calm = in_time && alive_until(world, connection.on, back.at) && heard(ended, back.at);
    calm.then(|| {
        format!(
            "its client came back at {} ms, it was due at {due} ms",
            back.at
        )
    })
}

/// Whether the client's node has changed its cluster, or was removed from it, when somebody could
/// not hear that: to those it is silent for good, and its clients may be dead with it.
fn was_lost(world: &World, connection: &Connecting, at: u64) -> bool {
    let (oracle, host) = (&world.oracle, connection.on.0);
    let moved = oracle
        .moved_at(host)
        .is_some_and(|moved| moved >= connection.at);
    let removed = oracle.exiled_at(host).is_some();
    let mut others = 0..world.hosts.len();
    let heard = |other| oracle.is_in_touch(host, other, connection.at, at);
    (moved || removed) && !others.all(heard)
}

fn alive_until(world: &World, life: Life, at: u64) -> bool {
    let death = world.oracle.wills.death(life);
    death.is_none_or(|death| death > at + HEARD_MS)
}

/// Whether nothing was wrong between any two nodes, `host` among them.
fn all_calm(world: &World, host: Option<usize>, (from, to): (u64, u64)) -> bool {
    let hosts = 0..world.hosts.len();
    let mut pairs = hosts.flat_map(|a| (0..=a).map(move |b| (a, b)));
    let concerned = |a, b| host.is_none_or(|host| a == host || b == host);
    pairs.all(|(a, b)| !concerned(a, b) || world.oracle.is_settled(a, b, from, to))
}

/// Whether nothing was wrong between any two nodes but one that died.
fn survivors_calm(world: &World, dead: usize, (from, to): (u64, u64)) -> bool {
    let hosts = (0..world.hosts.len()).filter(|host| *host != dead);
    let mut pairs = hosts.flat_map(|a| (0..=a).filter(|b| *b != dead).map(move |b| (a, b)));
    pairs.all(|(a, b)| world.oracle.is_settled(a, b, from, to))
}

/// Whether it must not have come again.
fn twice(world: &World, got: &WillGot) -> Option<String> {
    let oracle = &world.oracle;
    let all = oracle.wills.got(got.will).iter();
    let same = |d: &&WillGot| {
        (d.client, d.attempt) == (got.client, got.attempt) && !d.retain && !got.retain
    };
    let first = all.clone().find(|d| !d.retain)?.at;
    let copies = all.filter(same).count();
    if copies <= 1 {
        return None;
    }
    let on = oracle.wills.connection(got.will)?.on;
    let calm = match oracle.wills.death(on) {
        // Its node may have published it and died before it could tell the others.
        Some(death) if death <= got.at => {
            let by_others = first > death + HEARD_MS || !was_due(world, got.will, death);
            by_others && survivors_calm(world, on.0, (death, got.at))
        }
        _ => all_calm(world, None, (first.saturating_sub(HEARD_MS), got.at)),
    };
    calm.then(|| format!("{copies} times on one connection"))
}

/// Whether a client's node may have had a reason to publish its will before a time.
fn was_due(world: &World, id: WillId, before: u64) -> bool {
    let wills = &world.oracle.wills;
    let connection = wills.connection(id);
    let ended = connection.and_then(|connection| connection.end);
    let next = wills.next(id);
    ended.is_some_and(|(at, _)| at < before) || next.is_some_and(|next| next.at < before)
}

/// A will that somebody has to get.
#[derive(Clone, Copy, Debug)]
pub struct Owed<'a> {
    /// The will.
    pub will: WillId,
    /// What it is like.
    pub left: &'a Left,
    /// To whom.
    pub to: &'a Promise,
    /// Since when its client is gone.
    pub since: u64,
    /// Whether its node died.
    pub dead: bool,
}

pub(super) fn end(world: &World) -> Result<(), Violation> {
    let wills = world.oracle.wills.all();
    let mut kept = wills.filter(|(_, left)| left.retain);
    let lost = kept.find(|(id, left)| {
        let due = due(world, *id, left);
        due.is_some_and(|due| due.is_kept(world) && !has_any(world, due.host, left.topic))
    });
    if let Some((id, left)) = lost {
        let seen = format!("{} retains nothing, not even {}", left.topic, id.payload());
        return Err(Violation::new("wills", seen));
    }
    let got = |owed: &Owed<'_>| {
        let mut all = world.oracle.wills.got(owed.will).iter();
        all.any(|got| got.client == owed.to.client)
    };
    let missing = owed(world).into_iter().find(|owed| !got(owed));
    missing.map_or(Ok(()), |missing| {
        let Owed {
            will,
            left,
            to,
            since,
            dead,
        } = missing;
        let seen = format!(
            "client {} never got {} ({}, QoS {}), whose client is gone since {since} ms{}",
            to.client,
            will.payload(),
            left.topic,
            left.qos,
            if dead { " with its node" } else { "" },
        );
        Err(Violation::new("wills", seen))
    })
}

/// Whether a node has a retained message of a topic.
fn has_any(world: &World, host: usize, topic: &str) -> bool {
    let node = world.hosts[host].node();
    node.is_none_or(|node| node.shared().retained().get(topic, 0).is_some())
}

/// All wills that had to arrive, at everybody.
pub fn owed(world: &World) -> Vec<Owed<'_>> {
    let mut owed = Vec::new();
    for (will, left) in world.oracle.wills.all() {
        let Some(due) = due(world, will, left) else {
            continue;
        };
        let promises = world.oracle.promises().iter();
        let reached = promises.filter(|promise| due.reaches(world, left, promise));
        owed.extend(reached.map(|to| Owed {
            will,
            left,
            to,
            since: due.from,
            dead: due.dead,
        }));
    }
    owed
}

/// When a will is published for sure, and where.
#[derive(Clone, Copy, Debug)]
struct Due {
    from: u64,
    to: u64,
    host: usize,
    /// By one of the others, because that host's node is dead.
    dead: bool,
}

fn due(world: &World, id: WillId, left: &Left) -> Option<Due> {
    let wills = &world.oracle.wills;
    let connection = wills.connection(id)?;
    let armed = connection.answered?;
    let split = world.oracle.is_split_session(id.client, armed.session);
    if split && left.delay_ms > 0 {
        return None;
    }
    let armed = armed.at;
    let (host, next) = (connection.on.0, wills.next(id));
    let death = wills.death(connection.on);
    if let Some((from, how)) = connection.end
        && death.is_none_or(|death| from < death)
    {
        let heard = heard_at(world, id, how, from, next)?;
        let to = heard + left.delay_ms;
        let came = next.is_some_and(|next| left.delay_ms > 0 && next.at <= to);
        let lived = death.is_none_or(|death| death > to + HEARD_MS);
        let dead = false;
        return (!came && lived).then_some(Due {
            from,
            to,
            host,
            dead,
        });
    }
    let from = death.filter(|_| connection.end.is_none_or(|(_, how)| how != Parting::Clean))?;
    let to = seen_dead(world, connection.on)? + left.delay_ms;
    let known = from >= armed + HEARD_MS
        && (0..world.hosts.len()).all(|other| {
            world
                .oracle
                .is_settled(host, other, from - HEARD_MS, from - 1)
        });
    let away = next.is_none_or(|next| next.at > to);
    let sure = known && away && survivors_calm(world, host, (from, to)) && world.hosts.len() > 1;
    sure.then_some(Due {
        from,
        to,
        host,
        dead: true,
    })
}

/// When all others are sure that a process is gone: at once where its host says so, else when its
/// successor runs.
fn seen_dead(world: &World, life: Life) -> Option<u64> {
    let oracle = &world.oracle;
    let death = oracle.wills.dead(life)?;
    if !death.silent {
        return Some(death.at + REFUSED_MS);
    }
    let (host, number) = life;
    let next = oracle.life(host).1 == number + 1;
    next.then(|| oracle.born(host) + REFUSED_MS)
}

/// When a living node has heard for sure that a client is gone.
fn heard_at(
    world: &World,
    id: WillId,
    how: Parting,
    ended: u64,
    next: Option<&Connecting>,
) -> Option<u64> {
    let heard = match how {
        Parting::Clean => return None,
        Parting::Closed => Some(ended),
        Parting::Vanished => {
            let keepalive_s = u64::from(world.options.clients[id.client].keepalive_s);
            let silent = ended + keepalive_s * 1_000 * KEEPALIVE_HALVES / 2;
            let back = next.and_then(|next| {
                let Answer { at, .. } = next.answered?;
                let host = world.oracle.wills.connection(id)?.on.0;
                let told = world
                    .oracle
                    .is_settled(host, next.on.0, ended, at + HEARD_MS);
                told.then_some(at)
            });
            let silent = (keepalive_s > 0).then_some(silent);
            silent.into_iter().chain(back).min()
        }
    };
    heard.map(|at| at + TOLD_MS)
}

impl Due {
    /// Whether what is retained then stays, because no node dies or changes its cluster after that.
    fn is_kept(&self, world: &World) -> bool {
        let oracle = &world.oracle;
        let stays = |host: usize| {
            let moved = oracle.moved_at(host).is_some_and(|at| at >= self.from);
            !moved && oracle.exiled_at(host).is_none()
        };
        let dies = oracle.wills.last_death().is_some_and(|at| at > self.from);
        self.to < world.now && !dies && (0..world.hosts.len()).all(stays)
    }

    /// Whether a subscription must get what is published then: its client was connected all the
    /// time, from when everybody knew of it until it had read what came before.
    fn reaches(&self, world: &World, left: &Left, promise: &Promise) -> bool {
        let reader = &world.options.clients[promise.client];
        let until = self.to + READ_MS + READ_ACKS * reader.ack_delay_ms;
        if until > world.now
            || promise.group.is_some()
            || promise.acked_at >= self.from
            || promise.ended_at.is_some_and(|at| at <= until)
            || world.options.mqueue_len_max < QUEUE_ENOUGH
            || !dunlin_mqtt::topic::matches(&promise.filter, left.topic)
        {
            return false;
        }
        let oracle = &world.oracle;
        let mut connections = oracle.wills.connections(promise.client);
        let there = connections.find_map(|connection| {
            let since = connection.answered?;
            let lasts = connection.end.is_none_or(|(at, _)| at > until);
            let death = oracle.wills.death(connection.on);
            let lives = death.is_none_or(|death| death > until);
            (since.at < self.from && lasts && lives).then_some((connection, since))
        });
        let Some((connection, since)) = there else {
            return false;
        };
        // A session that was another one may not have the subscription.
        let own =
            promise.sent_at >= since.at || !oracle.is_split_session(promise.client, since.session);
        let (on, hosts) = (connection.on.0, 0..world.hosts.len());
        let mut from = hosts.filter(|host| (*host == self.host) != self.dead);
        own && from.all(|host| {
            let routed = promise.acked_at + ROUTE_MS < self.from
                || oracle.is_control_quiet(host, on, promise.sent_at, promise.acked_at);
            routed
                && oracle.is_settled(host, on, self.from, self.to)
                && oracle.is_quiet(host, on, self.from, self.to)
        })
    }
}
