use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use enclasp_keystore::agent::{MAX_FRAME, Request, Response, VERSION, encode};
use enclasp_keystore::{
    Access, Algorithm, Error, Input, Keystore, Presence, Scheme, SignContext, conformance, verify,
};

use crate::support::{Agent, Wire, WireLane, refused, sign, uri};

pub fn the_first_request_is_a_hello() {
    let agent = Agent::start(&[]);
    for request in [Request::Status, Request::List, sign("soft:name=web", b"x", "", None)] {
        let mut wire = Wire::connect(&agent.socket());
        assert!(matches!(refused(wire.call(7, &request)), Error::Protocol { .. }));
        wire.is_closed();
    }
}

pub fn another_version_is_refused() {
    let agent = Agent::start(&[]);
    for version in [0, VERSION + 1, u16::MAX] {
        let mut wire = Wire::connect(&agent.socket());
        let error = refused(wire.call(1, &Request::Hello(version)));
        assert!(error.to_string().contains(&format!("the program {version}")), "{error}");
        wire.is_closed();
    }
}

pub fn garbage_is_refused_and_ends_the_connection() {
    let agent = Agent::start(&[]);
    let mut trailing = Vec::new();
    encode(1, &Request::Status, &mut trailing).unwrap();
    trailing.push(0);
    trailing[3] += 1;
    let too_long = [&(MAX_FRAME as u32 + 1).to_be_bytes()[..], &[0; 4]].concat();
    let unknown_request = [0, 0, 0, 5, 0, 0, 0, 1, 99];
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 8], &[0xff; 64], &too_long, &unknown_request, &trailing]
    {
        for mut wire in [Wire::connect(&agent.socket()), agent.wire()] {
            wire.stream.write_all(bytes).unwrap();
            assert!(matches!(refused(wire.receive().1), Error::Protocol { .. }), "{bytes:?}");
            wire.is_closed();
        }
    }
    assert!(matches!(agent.wire().call(1, &Request::Status), Response::Status(_)));
}

pub fn a_frame_that_stops_is_dropped() {
    let agent = Agent::start(&[]);
    let mut frame = Vec::new();
    encode(1, &Request::Status, &mut frame).unwrap();
    let stalled: Vec<_> = [&frame[..3], &frame[..8], &[0, 15, 0, 0, 0, 0, 0, 0, 1][..]]
        .map(|part| {
            let mut wire = agent.wire();
            wire.stream.write_all(part).unwrap();
            wire
        })
        .into();
    let mut silent = Wire::connect(&agent.socket());
    let mut idle = agent.wire();
    let began = Instant::now();
    for mut wire in stalled {
        wire.is_closed();
    }
    silent.is_closed();
    let elapsed = began.elapsed();
    assert!(elapsed > Duration::from_secs(8) && elapsed < Duration::from_secs(25), "{elapsed:?}");
    // One that said hello and asks nothing may stay.
    assert!(matches!(idle.call(1, &Request::Status), Response::Status(_)));
}

pub fn a_peer_that_takes_no_answers_is_dropped() {
    let agent = Agent::start(&[]);
    let mut wire = agent.wire();
    let mut frame = Vec::new();
    encode(1, &Request::Status, &mut frame).unwrap();
    let flood = frame.repeat(1000);
    wire.stream.set_write_timeout(Some(Duration::from_secs(25))).unwrap();
    let began = Instant::now();
    let error = loop {
        if let Err(error) = wire.stream.write_all(&flood) {
            break error;
        }
    };
    // Which of the two depends on whether it was writing at that moment.
    let dropped = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
    assert!(dropped.contains(&error.kind()), "{error} after {:?}", began.elapsed());
    assert!(matches!(agent.wire().call(1, &Request::Status), Response::Status(_)));
}

pub fn a_thousand_requests_in_flight_are_answered() {
    let agent = Agent::start(&[]);
    let key = agent.make("web", Presence::None, Access::default());
    let mut wire = agent.wire();
    let messages: Vec<Vec<u8>> = (0..1000u32).map(|i| vec![i as u8; i as usize]).collect();
    let mut sender = wire.stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut frame = Vec::new();
            for (i, message) in messages.iter().enumerate() {
                let name = if i.is_multiple_of(10) { "soft:name=absent" } else { "soft:name=web" };
                encode(i as u32 * 7, &sign(name, message, "pipelining", None), &mut frame).unwrap();
                sender.write_all(&frame).unwrap();
            }
        });
        let mut seen = vec![false; messages.len()];
        for _ in 0..messages.len() {
            let (id, response) = wire.receive();
            let i = id as usize / 7;
            assert!(id.is_multiple_of(7) && !std::mem::replace(&mut seen[i], true), "{id}");
            if i.is_multiple_of(10) {
                assert_eq!(refused(response), Error::Absent { key: "soft:name=absent".into() });
                continue;
            }
            let Response::Signature(signature) = response else { panic!("{response:?}") };
            let input = Input::Message(&messages[i]);
            assert_eq!(verify(&key.spki, Scheme::EcdsaP256Sha256, input, &signature), Ok(()));
        }
    });
    let Response::Status(status) = wire.call(1, &Request::Status) else { panic!("no status") };
    assert_eq!(status.signatures, 900);
    assert_eq!(status.pid, agent.pid());
}

pub fn a_lane_carries_signatures_and_nothing_else() {
    let agent = Agent::start(&[]);
    let key = agent.make("web", Presence::None, Access::default());
    agent.make("asks", Presence::Confirm, Access::default());
    let mut wire = agent.wire();
    let mut lane = wire.lane();
    let input = Input::Message(b"by the lane");
    for id in 0..100 {
        let response = lane.call(id, &sign("soft:name=web", b"by the lane", "test", None));
        let Response::Signature(signature) = response else { panic!("{response:?}") };
        assert_eq!(verify(&key.spki, Scheme::EcdsaP256Sha256, input, &signature), Ok(()));
    }
    let error = refused(lane.call(7, &sign("soft:name=absent", b"x", "test", None)));
    assert_eq!(error, Error::Absent { key: "soft:name=absent".into() });
    let error = refused(lane.call(8, &sign("soft:name=asks", b"x", "test", None)));
    assert!(matches!(error, Error::Denied { .. }), "{error}");
    for other in [Request::Status, Request::List, Request::Hello(VERSION), Request::Lane] {
        let error = refused(lane.call(9, &other));
        assert!(matches!(error, Error::Protocol { .. }), "{error}");
    }
    assert!(matches!(refused(wire.call(2, &Request::Lane)), Error::Busy { .. }), "one is enough");
    let Response::Status(status) = wire.call(3, &Request::Status) else { panic!("no status") };
    assert_eq!(status.signatures, 100);
}

pub fn a_lane_ends_with_its_connection() {
    let agent = Agent::start(&[]);
    // As many as one user has places for, and once more: they are given back.
    for _ in 0..200 {
        let mut lane = agent.wire().lane();
        lane.is_closed();
    }
    // And the connection with its lane, when that brings garbage.
    let mut wire = agent.wire();
    let mut lane = wire.lane();
    lane.requests.write_all(&[0; 8]).unwrap();
    lane.is_closed();
    wire.is_closed();
}

pub fn a_peer_that_takes_no_answers_of_its_lane_is_dropped() {
    let agent = Agent::start(&[]);
    agent.make("web", Presence::None, Access::default());
    let mut wire = agent.wire();
    let WireLane { mut requests, answers, end, .. } = wire.lane();
    drop(end);
    let mut frame = Vec::new();
    encode(1, &sign("soft:name=web", b"x", "flood", None), &mut frame).unwrap();
    let error = loop {
        if let Err(error) = requests.write_all(&frame) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    wire.is_closed();
    drop(answers);
}

pub fn the_agent_conforms() {
    let agent = Agent::start(&[]);
    conformance::run(&agent.keystore(), uri, &[Algorithm::P256, Algorithm::P384, Algorithm::Ed25519]);
}

pub fn a_message_beyond_a_frame_is_signed() {
    let agent = Agent::start(&[]);
    let info = agent.make("ca", Presence::None, Access::default());
    let key = agent.keystore().open(&info.uri).unwrap();
    let message = vec![0x5a; 5 * MAX_FRAME];
    for scheme in [Scheme::EcdsaP256Sha256, Scheme::EcdsaP256Sha384] {
        let signature = key.sign(scheme, Input::Message(&message), &SignContext::new("test")).unwrap();
        verify(&info.spki, scheme, Input::Message(&message), signature.as_ref()).unwrap();
    }
}

pub fn too_many_connections_are_told_so() {
    let agent = Agent::start(&[]);
    let mut served = Vec::new();
    let mut busy = 0;
    for _ in 0..300 {
        let mut wire = Wire::connect(&agent.socket());
        let mut frame = Vec::new();
        encode(1, &Request::Hello(VERSION), &mut frame).unwrap();
        // Beyond a bound it is closed unread.
        if wire.stream.write_all(&frame).is_err() {
            continue;
        }
        let mut first = [0];
        if !matches!(wire.stream.read(&mut first), Ok(1)) {
            continue;
        }
        // The rest of a hello, or the beginning of a refusal; byte 8 of either tells which.
        let mut rest = [0; 9];
        wire.stream.read_exact(&mut rest).unwrap();
        match rest[7] {
            0 => served.push(wire),
            _ => busy += 1,
        }
    }
    assert_eq!((served.len(), busy), (192, 108));
    for wire in &mut served {
        assert!(matches!(wire.call(2, &Request::Status), Response::Status(_)));
    }
    drop(served);
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        let mut wire = Wire::connect(&agent.socket());
        match wire.call(1, &Request::Hello(VERSION)) {
            Response::Hello(_) => return,
            response => assert!(matches!(refused(response), Error::Busy { .. })),
        }
    }
    panic!("places are not given back");
}
