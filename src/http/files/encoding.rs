//! Which of the encodings of a file a client gets (RFC 9110 section 12.5.3).

use preforkd_worker::settings::Coding;

/// The ending of the files of a coding, which lie beside the file that they encode.
pub(super) fn ending(coding: Coding) -> &'static str {
    match coding {
        Coding::Br => ".br",
        Coding::Zstd => ".zst",
        Coding::Gzip => ".gz",
    }
}

fn is(coding: Coding, name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(coding.name().as_bytes())
        // RFC 9110 section 8.4.1.3.
        || coding == Coding::Gzip && name.eq_ignore_ascii_case(b"x-gzip")
}

/// The coding that the client likes best among those that are there, which are in the order of ours; none for the file as it is. A client
/// that accepts nothing of what is there gets the file as it is, too: it may be wrong about itself, and an error helps nobody.
pub fn choose(accepted: &[&[u8]], there: impl Iterator<Item = Coding>) -> Option<Coding> {
    if accepted.is_empty() {
        return None;
    }
    let plain = quality(accepted, |name| name.eq_ignore_ascii_case(b"identity"));
    let any = quality(accepted, |name| name == b"*").unwrap_or(0);
    let mut best = (plain.unwrap_or(0).max(1), None);
    for coding in there {
        let quality = quality(accepted, |name| is(coding, name)).unwrap_or(any);
        if quality > best.0 || quality == best.0 && best.1.is_none() {
            best = (quality, Some(coding));
        }
    }
    best.1
}

/// What the first element says that is meant, in thousandths.
fn quality(accepted: &[&[u8]], is: impl Fn(&[u8]) -> bool) -> Option<u32> {
    let mut elements = accepted
        .iter()
        .flat_map(|line| line.split(|&b| b == b','))
        .map(|element| {
            let mut parts = element.split(|&b| b == b';').map(<[u8]>::trim_ascii);
            (parts.next().unwrap_or_default(), parts)
        });
    let (_, mut parameters) = elements.find(|(name, _)| is(name))?;
    let weight = parameters.find_map(|parameter| match parameter {
        [b'q' | b'Q', b'=', weight @ ..] => Some(weight),
        _ => None,
    });
    Some(weight.map_or(1000, thousandths))
}

/// A weight (RFC 9110 section 12.4.2); 0 for what is none, as then the client is better off without the coding.
fn thousandths(weight: &[u8]) -> u32 {
    let (whole, fraction) = match weight {
        [whole] => (whole, &b""[..]),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return 0,
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    let digits = fraction.iter().map(|digit| u32::from(digit - b'0'));
    let fraction = digits.zip([100, 10, 1]).map(|(digit, place)| digit * place);
    match whole {
        b'0' => fraction.sum(),
        b'1' => 1000,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_gets_what_it_likes_best() {
        for (lines, coding) in [
            (&[][..], ""),
            (&[""], ""),
            (&["gzip"], "gzip"),
            (&["x-gzip"], "gzip"),
            (&["GZIP"], "gzip"),
            (&["gzip, deflate, br, zstd"], "br"),
            (&["gzip, zstd"], "zstd"),
            (&["gzip", "br"], "br"),
            (&["deflate"], ""),
            (&["identity"], ""),
            (&["gzip;q=1.0, br;q=0.5"], "gzip"),
            (&["gzip;q=0.001"], "gzip"),
            (&["gzip;q=0"], ""),
            (&["gzip;q=0.000, br;q=0.0, zstd;q=0."], ""),
            (&["br ; q=0.8 , gzip ;\tQ=0.9"], "gzip"),
            (&["gzip;q=2, br;q=x, zstd;q=0.1234"], ""),
            (&["gzip;level=1;q=0.5"], "gzip"),
            // The file as it is, if that is liked better.
            (&["gzip;q=0.5, identity"], ""),
            (&["gzip;q=0.5, identity;q=0.4"], "gzip"),
            (&["gzip, identity"], "gzip"),
            (&["identity;q=0, gzip;q=0.1"], "gzip"),
            (&["identity;q=0"], ""),
            // Everything else.
            (&["*"], "br"),
            (&["*;q=0"], ""),
            (&["gzip, *;q=0"], "gzip"),
            (&["br;q=0, *"], "zstd"),
            (&["identity;q=0, *;q=0.5"], "br"),
            (&["identity, *;q=0.5"], ""),
            (&["gzip;q=0.9, *;q=0.1"], "gzip"),
        ] {
            let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
            let chosen = choose(&lines, Coding::ALL.into_iter());
            assert_eq!(
                chosen.map_or("", Coding::name),
                coding,
                "{:?}",
                lines
                    .iter()
                    .map(|line| str::from_utf8(line))
                    .collect::<Vec<_>>()
            );
        }
        assert_eq!(
            choose(&[b"gzip, br"], [Coding::Gzip].into_iter()),
            Some(Coding::Gzip)
        );
        assert_eq!(choose(&[b"gzip, br"], [].into_iter()), None);
    }
}
