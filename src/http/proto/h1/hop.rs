//! Fields that are for one connection only, and must not be passed on (RFC 9110 section 7.6.1).

/// Whether a field of that name is for this connection only, whatever `Connection` says of it.
pub fn is_hop_by_hop(name: &[u8]) -> bool {
    let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
    match name.len() {
        2 => is(b"te"),
        7 => is(b"trailer") || is(b"upgrade"),
        10 => is(b"connection") || is(b"keep-alive"),
        14 => is(b"http2-settings"),
        16 => is(b"proxy-connection"),
        17 => is(b"transfer-encoding"),
        18 => is(b"proxy-authenticate"),
        19 => is(b"proxy-authorization"),
        _ => false,
    }
}

/// Whether a field of that name may not follow a body, as it says how the message is framed, where it goes, who may see it or what becomes of
/// it (RFC 9110 section 6.5.1).
pub(crate) fn is_of_the_head(name: &[u8]) -> bool {
    const OF_THE_HEAD: [&[u8]; 19] = [
        b"age",
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"cookie",
        b"date",
        b"expires",
        b"host",
        b"location",
        b"max-forwards",
        b"range",
        b"retry-after",
        b"set-cookie",
        b"vary",
        b"warning",
        b"www-authenticate",
    ];
    let is_condition = || matches!(name, [b'I' | b'i', b'F' | b'f', b'-', ..]);
    is_hop_by_hop(name)
        || is_condition()
        || OF_THE_HEAD
            .iter()
            .any(|other| other.eq_ignore_ascii_case(name))
}

/// Whether a value of `Connection` names fields, and does not only say whether the connection is kept.
pub(crate) fn names_fields(value: &[u8]) -> bool {
    options(value).any(|option| {
        !option.eq_ignore_ascii_case(b"close") && !option.eq_ignore_ascii_case(b"keep-alive")
    })
}

/// Whether a value of `Connection` names this field, and may. A sender must not name those that are for all recipients; one that does
/// so nevertheless would take away what the message means.
pub(crate) fn names(value: &[u8], field: &[u8]) -> bool {
    const FOR_ALL: [&[u8]; 9] = [
        b"host",
        b"content-length",
        b"content-type",
        b"content-encoding",
        b"authorization",
        b"cookie",
        b"set-cookie",
        b"cache-control",
        b"date",
    ];
    options(value).any(|option| option.eq_ignore_ascii_case(field))
        && !FOR_ALL.iter().any(|name| name.eq_ignore_ascii_case(field))
}

/// The options of a value of `Connection`.
pub(crate) fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let options = value.split(|&b| b == b',').map(<[u8]>::trim_ascii);
    options.filter(|option| !option.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_one_connection_are_known_by_name_or_named() {
        for name in ["TE", "Upgrade", "keep-alive", "Transfer-Encoding"] {
            assert!(is_hop_by_hop(name.as_bytes()), "{name}");
        }
        assert!(!is_hop_by_hop(b"host") && !is_hop_by_hop(b"x-te"));
        assert!(!names_fields(b"close, Keep-Alive,") && names_fields(b"close, x-a"));
        assert!(names(b"a, X-B", b"x-b") && !names(b"a, x-b", b"x-c"));
        assert!(!names(b"Host, Content-Length", b"host"));
    }
}
