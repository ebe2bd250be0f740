//! What the checks say of a broker that is broken on purpose: the ceiling behind a proxy that does
//! something wrong to every tenth message.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use dunlin_mqtt::QoS;

use super::tests::{Running, measure_at, short};
use crate::access::Access;
use crate::check::Faults;
use crate::target::Target;
use crate::wire::Frame;

#[derive(Clone, Copy)]
enum Flaw {
    Loses,
    Doubles,
    Swaps,
}

const EVERY: usize = 10;

/// A proxy before a broker, until the tests end.
fn proxy(flaw: Flaw, broker: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(broker).expect("the broker listens");
            let up = (clone(&client), clone(&server));
            thread::spawn(move || pass_up(up));
            thread::spawn(move || pass_down(flaw, server, client));
        }
    });
    address
}

fn clone(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a second handle")
}

fn pass_up((mut client, mut server): (TcpStream, TcpStream)) {
    // Whichever end goes first, the other hears of it.
    let _ = io::copy(&mut client, &mut server);
    let _ = server.shutdown(Shutdown::Both);
}

fn pass_down(flaw: Flaw, mut server: TcpStream, mut client: TcpStream) {
    let (mut held, mut buffer, mut count) = (Vec::new(), vec![0; 65_536], 0);
    loop {
        let Ok(len @ 1..) = server.read(&mut buffer) else {
            let _ = client.shutdown(Shutdown::Both);
            return;
        };
        held.extend_from_slice(&buffer[..len]);
        let (mut at, mut out) = (0, Vec::new());
        while let Some(frame) = Frame::first(&held[at..]).expect("valid packets") {
            at += frame.bytes.len();
            count += usize::from(frame.is_publish());
            if !frame.is_publish() || !count.is_multiple_of(EVERY) {
                out.extend_from_slice(frame.bytes);
                continue;
            }
            match flaw {
                Flaw::Loses => {}
                Flaw::Doubles => out.extend_from_slice(&[frame.bytes, frame.bytes].concat()),
                Flaw::Swaps => {
                    if let Ok(Some(next)) = Frame::first(&held[at..]) {
                        at += next.bytes.len();
                        count += usize::from(next.is_publish());
                        out.extend_from_slice(next.bytes);
                    }
                    out.extend_from_slice(frame.bytes);
                }
            }
        }
        held.drain(..at);
        if client.write_all(&out).is_err() {
            return;
        }
    }
}

fn found(flaw: Flaw, qos: QoS) -> Faults {
    let null = Running::start();
    let target = Target::at(proxy(flaw, null.address), Access::default());
    let sample = measure_at(&target, "pairs", &short(qos)).expect("a figure");
    assert!(sample.units > EVERY as u64, "{}", sample.units);
    sample.faults
}

#[test]
fn a_broker_that_loses_messages_is_seen() {
    let faults = found(Flaw::Loses, QoS::AtMostOnce);
    assert!(faults.lost > 0, "{faults:?}");
    assert_eq!((faults.duplicated, faults.reordered), (0, 0));
}

#[test]
fn a_broker_that_doubles_messages_is_seen() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let faults = found(Flaw::Doubles, qos);
        assert!(faults.duplicated > 0, "{faults:?}");
        assert_eq!((faults.lost, faults.reordered), (0, 0));
    }
}

#[test]
fn a_broker_that_changes_their_order_is_seen() {
    let faults = found(Flaw::Swaps, QoS::AtMostOnce);
    assert!(faults.reordered > 0, "{faults:?}");
    assert_eq!((faults.lost, faults.duplicated), (0, 0));
}
