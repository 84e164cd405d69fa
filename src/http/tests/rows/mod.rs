//! Raw bytes and what must come of them, each with the section or the weakness that it stands for: `9112 3.2` is section 3.2 of RFC 9112.
//! Whoever reads requests holds to them: the state machine by itself, and a server.
//!
//! What must come of bytes is a line for each request, `METHOD PATH QUERY BODY;`, and then `wait` or the status of a refusal.

use preforkd_http::Limits;

/// Takes a row: what it stands for, the bytes, and what must come of them.
pub type Check<'a> = &'a mut dyn FnMut(&str, &[u8], &str);

/// The limits for which the rows are written.
pub fn limits_of_rows() -> Limits {
    Limits {
        max_head: 2048,
        max_fields: 20,
        max_body: 100,
        body_in_memory: 16,
        ..Limits::default()
    }
}

/// All of them.
#[allow(dead_code, reason = "some users take them topic by topic")]
pub fn all(check: Check<'_>) {
    request_lines(check);
    targets(check);
    hosts(check);
    field_lines(check);
    content_lengths(check);
    transfer_codings(check);
    chunks(check);
    limits(check);
    pipelines(check);
}

/// A head of GET / with these field lines.
pub fn fields(lines: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n").into_bytes()
}

pub fn post(lines: &str, body: &str) -> Vec<u8> {
    format!("POST /p HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{body}").into_bytes()
}

const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

pub fn request_lines(check: Check<'_>) {
    let rows: &[(&str, &str, &str)] = &[
        (
            "9112 3",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /  ;wait",
        ),
        (
            "9112 3",
            "GET /a/b?c=d HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a/b c=d ;wait",
        ),
        ("9112 2.3", "GET / HTTP/1.0\r\n\r\n", "GET /  ;wait"),
        (
            "9112 2.3",
            "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
            "GET /  ;wait",
        ),
        (
            "9110 9.1, any token is a method",
            "M-SEARCH!# / HTTP/1.1\r\nHost: a\r\n\r\n",
            "M-SEARCH!# /  ;wait",
        ),
        (
            "9110 9.1, methods are case-sensitive",
            "get / HTTP/1.1\r\nHost: a\r\n\r\n",
            "get /  ;wait",
        ),
        (
            "9112 2.2, one empty line before",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /  ;wait",
        ),
        (
            "9112 2.2, two are too many",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "400",
        ),
        (
            "9112 2.2, a bare LF before",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "400",
        ),
        (
            "9112 2.2, whitespace before",
            " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "400",
        ),
        (
            "9112 2.2, bare LF after the request line",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "400",
        ),
        (
            "9112 2.2, bare LF everywhere",
            "GET / HTTP/1.1\nHost: a\n\n",
            "400",
        ),
        (
            "9112 2.2, bare CR in the request line",
            "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n",
            "400",
        ),
        (
            "9112 2.2, CR CR LF",
            "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
            "400",
        ),
        (
            "9112 3, two spaces",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "400",
        ),
        (
            "9112 3, two spaces",
            "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
            "400",
        ),
        (
            "9112 3, trailing space",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "400",
        ),
        ("9112 3, tab", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        (
            "9112 3, vertical tab",
            "GET /\x0b HTTP/1.1\r\nHost: a\r\n\r\n",
            "400",
        ),
        ("9112 3, no version (HTTP/0.9)", "GET /\r\n\r\n", "400"),
        (
            "9112 3, no target",
            "GET HTTP/1.1\r\nHost: a\r\n\r\n",
            "400",
        ),
        (
            "9112 3, empty target",
            "GET  HTTP/1.1\r\nHost: a\r\n\r\n",
            "400",
        ),
        (
            "9110 5.6.2, not a token",
            "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "400",
        ),
        (
            "9110 5.6.2, not a token",
            "GET: / HTTP/1.1\r\nHost: a\r\n\r\n",
            "400",
        ),
        (
            "9110 5.6.2, NUL",
            "GE\0T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "400",
        ),
        (
            "9112 3, TLS to a plain port",
            "\x16\x03\x01\x02\0\x01",
            "400",
        ),
        (
            "9112 2.3, HTTP/2 preface",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "505",
        ),
        (
            "9110 2.5, SHOULD be taken for 1.1: a choice",
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            "505",
        ),
        ("9112 2.3", "GET / HTTP/0.9\r\nHost: a\r\n\r\n", "505"),
        ("9112 2.3", "GET / HTTP/3.0\r\nHost: a\r\n\r\n", "505"),
        (
            "9112 2.3, not a version",
            "GET / HTTP/1\r\nHost: a\r\n\r\n",
            "400",
        ),
        (
            "9112 2.3, not a version",
            "GET / HTTP/11.1\r\nHost: a\r\n\r\n",
            "400",
        ),
        (
            "9112 2.3, not a version",
            "GET / HTTP/1.10\r\nHost: a\r\n\r\n",
            "400",
        ),
        (
            "9112 2.3, the name is case-sensitive",
            "GET / http/1.1\r\nHost: a\r\n\r\n",
            "400",
        ),
        (
            "9112 2.3, not a version",
            "GET / HTTP/+1.1\r\nHost: a\r\n\r\n",
            "400",
        ),
        (
            "9112 2.3, not HTTP",
            "GET / ICAP/1.0\r\nHost: a\r\n\r\n",
            "400",
        ),
        (
            "9112 8, incomplete",
            "GET / HTTP/1.1\r\nHost: a\r\n",
            "wait",
        ),
    ];
    for (why, input, expected) in rows {
        check(why, input.as_bytes(), expected);
    }
}

pub fn targets(check: Check<'_>) {
    let rows: &[(&str, &str, &str, &str)] = &[
        (
            "9112 3.2.1, origin form",
            "GET",
            "//a//b",
            "GET //a//b  ;wait",
        ),
        ("9112 3.2.1", "GET", "/?", "GET /  ;wait"),
        (
            "9112 3.2.1, not decoded here",
            "GET",
            "/%00%2f",
            "GET /%00%2f  ;wait",
        ),
        (
            "3986 3.4, what browsers send in queries",
            "GET",
            "/?a=[b]|{c}",
            "GET / a=[b]|{c} ;wait",
        ),
        (
            "9112 3.2.2, absolute form",
            "GET",
            "http://b/c?d",
            "GET /c d ;wait",
        ),
        ("9112 3.2.2, no path", "GET", "http://b", "GET /  ;wait"),
        (
            "9112 3.2.2, no path but a query",
            "GET",
            "http://b?c",
            "GET / c ;wait",
        ),
        (
            "9112 3.2.4, the whole server",
            "OPTIONS",
            "http://b",
            "OPTIONS *  ;wait",
        ),
        (
            "9112 3.2.2, case of the scheme",
            "GET",
            "HTTPS://b:1/",
            "GET /  ;wait",
        ),
        ("9110 4.2.1, no host", "GET", "http:///a", "400"),
        (
            "9110 4.2.4, user information",
            "GET",
            "http://u:p@b/",
            "400",
        ),
        ("9112 3.2.2, another scheme", "GET", "ftp://b/", "400"),
        (
            "9112 3.2.2, another scheme",
            "GET",
            "file:///etc/passwd",
            "400",
        ),
        ("9112 3.2.3, authority form", "CONNECT", "b:443", "501"),
        (
            "9112 3.2.3, authority form for another method",
            "GET",
            "b:443",
            "400",
        ),
        (
            "9112 3.2.4, asterisk form",
            "OPTIONS",
            "*",
            "OPTIONS *  ;wait",
        ),
        (
            "9112 3.2.4, asterisk form for another method",
            "GET",
            "*",
            "400",
        ),
        ("9112 3.2, relative", "GET", "a", "400"),
        ("9112 3.2, relative", "GET", "../a", "400"),
        ("9112 3.2, only a query", "GET", "?a", "400"),
        ("9110 7.1, fragment", "GET", "/a#b", "400"),
        ("3986 2, DEL", "GET", "/\x7f", "400"),
        ("3986 2, control", "GET", "/\x01", "400"),
        ("3986 2, not ASCII", "GET", "/é", "400"),
    ];
    for (why, method, target, expected) in rows {
        check(
            why,
            format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(),
            expected,
        );
    }
}

pub fn hosts(check: Check<'_>) {
    let rows: &[(&str, &str, &str)] = &[
        ("9110 7.2", "Host: a.b-c:8000", "GET /  ;wait"),
        ("9110 7.2, IPv6", "Host: [::1]:80", "GET /  ;wait"),
        ("9110 5.1, names have no case", "hOST: a", "GET /  ;wait"),
        ("9112 3.2, missing", "X: y", "400"),
        ("9112 3.2, twice", "Host: a\r\nHost: b", "400"),
        ("9112 3.2, twice the same", "Host: a\r\nhost: a", "400"),
        ("9110 7.2, empty", "Host:", "400"),
        ("9110 7.2, two in one", "Host: a, b", "400"),
        ("9110 7.2, two in one", "Host: a,b", "400"),
        ("9110 7.2, path", "Host: a/b", "400"),
        ("9110 4.2.4, user information", "Host: u@a", "400"),
        ("9110 7.2, port", "Host: a:b", "400"),
        ("9110 7.2, port", "Host: a:80:80", "400"),
        ("9110 7.2, only a port", "Host: :80", "400"),
        ("9110 7.2, not ASCII", "Host: é", "400"),
        ("9110 7.2, space", "Host: a b", "400"),
        ("9110 7.2, bracket", "Host: [::1", "400"),
        ("9110 7.2, quote", "Host: a\"b", "400"),
    ];
    for (why, line, expected) in rows {
        check(
            why,
            format!("GET / HTTP/1.1\r\n{line}\r\n\r\n").as_bytes(),
            expected,
        );
    }
    check(
        "9112 3.2, two in HTTP/1.0",
        b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        "400",
    );
    check(
        "9112 3.2, a bad one under an absolute target",
        b"GET http://a/ HTTP/1.1\r\nHost: b@c\r\n\r\n",
        "400",
    );
    check(
        "9112 3.2, none under an absolute target",
        b"GET http://a/ HTTP/1.1\r\n\r\n",
        "400",
    );
}

pub fn field_lines(check: Check<'_>) {
    let rows: &[(&str, &str, &str)] = &[
        ("9112 5, no space after the colon", "X:y", "GET /  ;wait"),
        ("9110 5.5, empty value", "X:", "GET /  ;wait"),
        ("9110 5.5, blanks around", "X: \t y \t ", "GET /  ;wait"),
        ("9110 5.5, obs-text", "X: \u{e9}", "GET /  ;wait"),
        ("9110 5.6.2, token", "X!#$%&'*+.^`|~-1: y", "GET /  ;wait"),
        (
            "9112 5.1, space before the colon (CVE-2019-16869)",
            "X : y",
            "400",
        ),
        ("9112 5.1, tab before the colon", "X\t: y", "400"),
        ("9112 5.2, obs-fold", "X: y\r\n z", "400"),
        ("9112 5.2, obs-fold by tab", "X: y\r\n\tz", "400"),
        ("9112 5, no colon (CVE-2019-20444)", "X", "400"),
        ("9112 5, no name", ": y", "400"),
        ("9110 5.1, space in the name", "X Y: z", "400"),
        ("9110 5.1, control in the name", "X\x01: y", "400"),
        ("9110 5.1, NUL in the name", "X\0: y", "400"),
        ("9110 5.1, not ASCII in the name", "Xé: y", "400"),
        ("9110 5.1, delimiter in the name", "X(: y", "400"),
        ("9110 5.1, slash in the name", "X/Y: z", "400"),
        ("9110 5.5, NUL (CVE-2019-9900)", "X: a\0b", "400"),
        ("9110 5.5, control", "X: a\x01b", "400"),
        ("9110 5.5, DEL", "X: a\x7fb", "400"),
        ("9110 5.5, vertical tab", "X: a\x0bb", "400"),
        ("9110 5.5, bare CR", "X: a\rb", "400"),
        ("9112 2.2, bare CR at the end", "X: a\r\r\nY: b", "400"),
        ("9112 2.2, bare LF (CVE-2019-16785)", "X: a\nY: b", "400"),
        (
            "9112 2.2, bare LF before Content-Length",
            "X: a\nContent-Length: 5",
            "400",
        ),
        ("9112 2.2, LF CR", "X: a\n\rY: b", "400"),
        (
            "CVE-2015-0219, underscores do not count",
            "Content_Length: 5",
            "GET /  ;wait",
        ),
        (
            "CVE-2015-0219",
            "Transfer_Encoding: chunked",
            "GET /  ;wait",
        ),
        ("9110 10.1.1, unknown expectation", "Expect: 200-ok", "417"),
        ("9110 10.1.1, case", "expect: 100-Continue", "GET /  ;wait"),
    ];
    for (why, lines, expected) in rows {
        check(why, &fields(lines), expected);
    }
    check(
        "9112 2.2, bare LF ends the head",
        b"GET / HTTP/1.1\r\nHost: a\r\n\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
        "400",
    );
    check(
        "9112 2.2, a blank before the first field",
        b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "400",
    );
    check(
        "9112 3.2, NUL in the value of Host",
        b"GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
        "400",
    );
}

pub fn content_lengths(check: Check<'_>) {
    let rows: &[(&str, &str, &str)] = &[
        (
            "9112 6.2",
            "Content-Length: 5",
            "POST /p  hello;GET /next  ;wait",
        ),
        (
            "9110 8.6, leading zeros",
            "Content-Length: 0005",
            "POST /p  hello;GET /next  ;wait",
        ),
        (
            "9110 5.5, blanks around",
            "Content-Length:   5\t",
            "POST /p  hello;GET /next  ;wait",
        ),
        (
            "9110 8.6, sign (CVE-2023-38697)",
            "Content-Length: +5",
            "400",
        ),
        ("9110 8.6, sign", "Content-Length: -5", "400"),
        ("9110 8.6, list", "Content-Length: 5, 5", "400"),
        ("9110 8.6, list", "Content-Length: 5,5", "400"),
        ("9110 8.6, list", "Content-Length: 5,6", "400"),
        (
            "9112 6.3, repeated",
            "Content-Length: 5\r\nContent-Length: 5",
            "400",
        ),
        (
            "9112 6.3, contradictory (CVE-2019-20445)",
            "Content-Length: 5\r\ncontent-length: 6",
            "400",
        ),
        ("9110 8.6, empty", "Content-Length:", "400"),
        ("9110 8.6, hexadecimal", "Content-Length: 0x5", "400"),
        ("9110 8.6, trailing junk", "Content-Length: 5a", "400"),
        ("9110 8.6, leading junk", "Content-Length: a5", "400"),
        ("9110 8.6, fraction", "Content-Length: 5.0", "400"),
        ("9110 8.6, exponent", "Content-Length: 1e1", "400"),
        ("9110 8.6, digit group", "Content-Length: 1_0", "400"),
        ("9110 8.6, space inside", "Content-Length: 5 0", "400"),
        ("9110 8.6, quoted", "Content-Length: \"5\"", "400"),
        ("9110 8.6, NUL", "Content-Length: 5\0", "400"),
        ("9110 8.6, other digits", "Content-Length: \u{665}", "400"),
        (
            "9110 8.6, overflow",
            "Content-Length: 18446744073709551616",
            "400",
        ),
        (
            "9110 8.6, overflow",
            "Content-Length: 99999999999999999999999999",
            "400",
        ),
        (
            "9110 15.5.14, too large",
            "Content-Length: 18446744073709551615",
            "413",
        ),
        ("9110 15.5.14, too large", "Content-Length: 101", "413"),
        (
            "9112 5.1, space before the colon",
            "Content-Length : 5",
            "400",
        ),
    ];
    for (why, lines, expected) in rows {
        check(why, &post(lines, &format!("hello{NEXT}")), expected);
    }
    check(
        "9112 6.3, none is no body",
        &post("X: y", NEXT),
        "POST /p  ;GET /next  ;wait",
    );
    check(
        "9112 6.2, incomplete",
        &post("Content-Length: 5", "hell"),
        "wait",
    );
    check(
        "9112 6.2, zero",
        &post("Content-Length: 0", NEXT),
        "POST /p  ;GET /next  ;wait",
    );
    check(
        "9110 9.3.1, GET with a body",
        &fields_body("Content-Length: 3", "abc"),
        "GET /  abc;wait",
    );
}

fn fields_body(lines: &str, body: &str) -> Vec<u8> {
    [fields(lines).as_slice(), body.as_bytes()].concat()
}

pub fn transfer_codings(check: Check<'_>) {
    let rows: &[(&str, &str, &str)] = &[
        (
            "9112 7.1",
            "Transfer-Encoding: chunked",
            "POST /p  hello;GET /next  ;wait",
        ),
        (
            "9112 7, case",
            "transfer-encoding: CHUNKED",
            "POST /p  hello;GET /next  ;wait",
        ),
        (
            "9112 6.3, with a length (CL.TE)",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "400",
        ),
        (
            "9112 6.3, with a length (TE.CL)",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "400",
        ),
        (
            "9112 6.3, with a length of zero",
            "Content-Length: 0\r\nTransfer-Encoding: chunked",
            "400",
        ),
        (
            "9112 6.1, repeated",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "400",
        ),
        (
            "9112 6.1, chunked twice",
            "Transfer-Encoding: chunked, chunked",
            "400",
        ),
        ("9112 6.1, identity", "Transfer-Encoding: identity", "400"),
        (
            "9112 6.1, identity",
            "Transfer-Encoding: chunked, identity",
            "400",
        ),
        (
            "9112 6.1, identity (CVE-2019-16786)",
            "Transfer-Encoding: identity, chunked",
            "400",
        ),
        (
            "9112 6.3, chunked is not last",
            "Transfer-Encoding: chunked, gzip",
            "400",
        ),
        (
            "9112 6.1, understood and not done",
            "Transfer-Encoding: gzip, chunked",
            "501",
        ),
        ("9112 6.3, no end", "Transfer-Encoding: gzip", "400"),
        (
            "9112 6.3, another coding",
            "Transfer-Encoding: xchunked",
            "400",
        ),
        (
            "9112 6.3, another coding",
            "Transfer-Encoding: chunkedx",
            "400",
        ),
        (
            "9112 7.1, a parameter",
            "Transfer-Encoding: chunked;q=1",
            "400",
        ),
        (
            "9110 10.1.4, quoted",
            "Transfer-Encoding: \"chunked\"",
            "400",
        ),
        (
            "9112 6.3, another coding",
            "Transfer-Encoding: chunk",
            "400",
        ),
        (
            "9110 5.6.1.2, empty element: ambiguous here",
            "Transfer-Encoding: ,chunked",
            "400",
        ),
        (
            "9110 5.6.1.2, empty element: ambiguous here",
            "Transfer-Encoding: chunked,",
            "400",
        ),
        (
            "9110 5.6.3, vertical tab (CVE-2019-16789)",
            "Transfer-Encoding: \x0bchunked",
            "400",
        ),
        (
            "9112 5.1, space before the colon (CVE-2019-16869)",
            "Transfer-Encoding : chunked",
            "400",
        ),
        ("9112 5.2, folded", "Transfer-Encoding:\r\n chunked", "400"),
        ("9110 5.5, control", "Transfer-Encoding: chunked\x01", "400"),
        ("9112 6.3, empty", "Transfer-Encoding:", "400"),
        (
            "9110 5.6.2, Kelvin sign",
            "Transfer-Encoding: chun\u{212a}ed",
            "400",
        ),
    ];
    for (why, lines, expected) in rows {
        check(
            why,
            &post(lines, &format!("5\r\nhello\r\n0\r\n\r\n{NEXT}")),
            expected,
        );
    }
    check(
        "9112 6.1, in HTTP/1.0",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "400",
    );
}

pub fn chunks(check: Check<'_>) {
    let rows: &[(&str, &str, &str)] = &[
        ("9112 7.1, empty", "0\r\n\r\n", "POST /p  ;wait"),
        (
            "9112 7.1, several",
            "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
            "POST /p  abc;wait",
        ),
        (
            "9112 7.1, upper and lower case",
            "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
            "POST /p  01234567890123456789;wait",
        ),
        (
            "9112 7.1, leading zeros",
            "0003\r\nabc\r\n000\r\n\r\n",
            "POST /p  abc;wait",
        ),
        (
            "9112 7.1.1, extension",
            "3;a=b\r\nabc\r\n0;c\r\n\r\n",
            "POST /p  abc;wait",
        ),
        (
            "9112 7.1.1, quoted extension",
            "3;a=\"b;\\\" \"\r\nabc\r\n0\r\n\r\n",
            "POST /p  abc;wait",
        ),
        (
            "9112 7.1.1, blanks around",
            "3 ; a = b\r\nabc\r\n0\r\n\r\n",
            "POST /p  abc;wait",
        ),
        (
            "9112 7.1.2, trailers are dropped",
            "3\r\nabc\r\n0\r\nX: y\r\nHost: b\r\n\r\n",
            "POST /p  abc;wait",
        ),
        (
            "9112 7.1, prefix 0x (CVE-2023-38697)",
            "0x3\r\nabc\r\n0\r\n\r\n",
            "400",
        ),
        (
            "9112 7.1, sign (CVE-2023-38697)",
            "+3\r\nabc\r\n0\r\n\r\n",
            "400",
        ),
        ("9112 7.1, sign", "-3\r\nabc\r\n0\r\n\r\n", "400"),
        ("9112 7.1, space before", " 3\r\nabc\r\n0\r\n\r\n", "400"),
        ("9112 7.1, space after", "3 \r\nabc\r\n0\r\n\r\n", "400"),
        ("9112 7.1, no size", "\r\nabc\r\n0\r\n\r\n", "400"),
        (
            "9112 7.1, no size but an extension",
            ";a\r\nabc\r\n0\r\n\r\n",
            "400",
        ),
        ("9112 7.1, not hexadecimal", "3g\r\nabc\r\n0\r\n\r\n", "400"),
        ("9112 7.1, digit group", "1_0\r\n", "400"),
        (
            "9112 7.1, overflow (CVE-2015-3183)",
            "10000000000000003\r\nabc\r\n0\r\n\r\n",
            "400",
        ),
        (
            "9112 7.1, zeros without end (CVE-2023-39326, by extensions)",
            "00000000000000003\r\nabc\r\n0\r\n\r\n",
            "400",
        ),
        ("9110 15.5.14, too large", "ffffffffffffffff\r\nabc", "413"),
        (
            "9110 15.5.14, too large together",
            "40\r\n0123456789012345678901234567890123456789012345678901234567890123\r\n30\r\n0123456789012345678901234567890123456789",
            "413",
        ),
        (
            "9112 7.1, longer than its size",
            "3\r\nabcd\r\n0\r\n\r\n",
            "400",
        ),
        (
            "9112 7.1, shorter than its size",
            "4\r\nabc\r\n0\r\n\r\n",
            "400",
        ),
        (
            "9112 7.1, bare LF after the size (CVE-2025-22871)",
            "3\nabc\r\n0\r\n\r\n",
            "400",
        ),
        (
            "9112 7.1, bare CR after the size",
            "3\rabc\r\n0\r\n\r\n",
            "400",
        ),
        (
            "9112 7.1, bare LF after the data",
            "3\r\nabc\n0\r\n\r\n",
            "400",
        ),
        ("9112 7.1, CR CR", "3\r\nabc\r\r0\r\n\r\n", "400"),
        ("9112 7.1, bare LF after the last chunk", "0\n\r\n", "400"),
        ("9112 7.1, bare LF at the very end", "0\r\n\n", "400"),
        (
            "9112 7.1, something else at the very end",
            "0\r\n\rX",
            "400",
        ),
        (
            "9112 7.1.1, bare LF in an extension (CVE-2023-38697)",
            "3;a\nabc\r\n0\r\n\r\n",
            "400",
        ),
        (
            "9112 7.1.1, LF in a quoted extension",
            "3;a=\"\nb\"\r\nabc\r\n0\r\n\r\n",
            "400",
        ),
        (
            "9112 7.1.1, NUL in an extension",
            "3;a\0\r\nabc\r\n0\r\n\r\n",
            "400",
        ),
        ("9112 7.1.1, no name", "3;\r\nabc\r\n0\r\n\r\n", "400"),
        ("9112 7.1.1, no value", "3;a=\r\nabc\r\n0\r\n\r\n", "400"),
        (
            "9112 7.1.1, not separated",
            "3 a\r\nabc\r\n0\r\n\r\n",
            "400",
        ),
        ("9112 7.1.2, malformed trailer", "0\r\nX\r\n\r\n", "400"),
        (
            "9112 7.1.2, folded trailer",
            "0\r\nX: y\r\n z\r\n\r\n",
            "400",
        ),
        ("9112 7.1.2, bare LF in trailers", "0\r\nX: y\n\r\n", "400"),
        ("9112 7.1.2, NUL in trailers", "0\r\nX: \0\r\n\r\n", "400"),
        (
            "9112 7.1.2, space before the colon",
            "0\r\nX : y\r\n\r\n",
            "400",
        ),
        ("9112 8, incomplete", "3\r\nabc\r\n0\r\n", "wait"),
        ("9112 8, incomplete", "3\r\nab", "wait"),
    ];
    for (why, body, expected) in rows {
        check(why, &post("Transfer-Encoding: chunked", body), expected);
    }
    check(
        "9112 9.3.2, what follows a body is the next request",
        &post(
            "Transfer-Encoding: chunked",
            &format!("3\r\nabc\r\n0\r\n\r\n{NEXT}"),
        ),
        "POST /p  abc;GET /next  ;wait",
    );
}

pub fn limits(check: Check<'_>) {
    check(
        "9110 15.5.15",
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(3000)).as_bytes(),
        "414",
    );
    check("9110 15.5.15, no end", "a".repeat(3000).as_bytes(), "414");
    check(
        "6585 5, one large field",
        &fields(&format!("X: {}", "a".repeat(3000))),
        "431",
    );
    check(
        "6585 5, many fields",
        &fields(&"X: y\r\n".repeat(20)),
        "431",
    );
    check(
        "6585 5, without end",
        "GET / HTTP/1.1\r\n"
            .to_owned()
            .into_bytes()
            .into_iter()
            .chain("X: y\r\n".repeat(500).into_bytes())
            .collect::<Vec<_>>()
            .as_slice(),
        "431",
    );
    check(
        "6585 5, just as many as allowed",
        &fields("X: y\r\n".repeat(19).trim_end()),
        "GET /  ;wait",
    );
    let without = fields("X: ").len();
    check(
        "6585 5, just as long as allowed",
        &fields(&format!("X: {}", "a".repeat(2048 - without))),
        "GET /  ;wait",
    );
    check(
        "6585 5, a byte more",
        &fields(&format!("X: {}", "a".repeat(2049 - without))),
        "431",
    );
}

pub fn pipelines(check: Check<'_>) {
    check(
        "9112 9.3.2",
        NEXT.repeat(3).as_bytes(),
        "GET /next  ;GET /next  ;GET /next  ;wait",
    );
    let mixed = [
        post("Content-Length: 3", "abc"),
        post("Transfer-Encoding: chunked", "1\r\nx\r\n0\r\n\r\n"),
        NEXT.into(),
    ]
    .concat();
    check(
        "9112 9.3.2",
        &mixed,
        "POST /p  abc;POST /p  x;GET /next  ;wait",
    );
    check(
        "9112 9.6, nothing is parsed after a rejection",
        format!("GET / HTTP/1.1\r\n\r\n{NEXT}").as_bytes(),
        "400",
    );
    check(
        "9112 6.3, bytes of one never become another's",
        &post("Content-Length: 4", &format!("abc{NEXT}")),
        "POST /p  abcG;ET /next  ;wait",
    );
    check(
        "9112 2.2, an empty line between",
        format!("{NEXT}\r\n{NEXT}").as_bytes(),
        "GET /next  ;GET /next  ;wait",
    );
}
