//! What did not come about leaves nothing behind. The test is alone in its process, whose memory and descriptors it counts.

mod common;

use common::*;

/// It is sent once, whatever happens.
const ASK: &str =
    "POST /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const WARM_UP: usize = 100;
const ROUNDS: usize = 600;
/// Less than one kept request or connection in each round would take.
const MOST: u64 = 512 << 10;

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let word = line.and_then(|line| line.split_whitespace().nth(1));
    1024 * word.unwrap().parse::<u64>().unwrap()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Upgrades that fail in each way: refused, not named, broken off, given up by the client.
fn fail(front: &Front, upstream: &Upstream) {
    let refused = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let unnamed = "HTTP/1.1 101 Switching Protocols\r\n\r\n";
    for (answer, seen) in [
        (refused, "HTTP/1.1 400 "),
        (unnamed, "HTTP/1.1 502 "),
        ("", "HTTP/1.1 502 "),
    ] {
        let mut client = front.send(&format!("{ASK}early"));
        let (mut peer, _) = upstream.request();
        peer.write(answer);
        drop(peer);
        let head = client.head();
        assert!(head.starts_with(seen), "{answer}: {head}");
    }
    let client = front.send(ASK);
    let (mut peer, _) = upstream.request();
    drop(client);
    peer.ends();
}

#[test]
fn upgrades_that_fail_leave_nothing_behind() {
    let (upstream, address) = upstream();
    let front = front(vec![address], |settings| {
        settings.limits.health.max_fails = 0
    });
    for _ in 0..WARM_UP {
        fail(&front, &upstream);
    }
    let before = (resident(), descriptors());
    for _ in 0..ROUNDS {
        fail(&front, &upstream);
    }
    let grown = resident().saturating_sub(before.0);
    assert!(grown < MOST, "{grown} bytes more");
    // Ends that the server has not seen yet.
    let more = descriptors().saturating_sub(before.1);
    assert!(more < 20, "{more} descriptors more");
}
