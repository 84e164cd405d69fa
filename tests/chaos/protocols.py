"""Connections of clients over TLS and HTTP/2, as strict as those of strict.py."""
import ssl

import hpack
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from clients import Probe
from strict import Answer, Closed, Connection, Loss

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def trusting():
    """Whoever is at the other end: what is asked is whether a connection lasts, and which certificate it has shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Secure(Probe):
    """HTTP/1.1 over TLS."""

    protocol = "http/1.1"

    def __init__(self, port, patience):
        super().__init__(port, patience)
        context = trusting()
        context.set_alpn_protocols([self.protocol])
        self.socket = context.wrap_socket(self.socket, do_handshake_on_connect=False)

    def begin(self):
        """Shake hands."""
        try:
            self.socket.do_handshake()
        except OSError as error:
            raise Loss(f"handshake: {error}") from error
        if self.socket.selected_alpn_protocol() != self.protocol:
            raise Loss(f"the server speaks {self.socket.selected_alpn_protocol()}")


class Http2(Secure):
    """HTTP/2 over TLS, one stream after the other. By frames, as a library for clients may take the first GOAWAY for the end of all streams."""

    protocol = "h2"

    def __init__(self, port, patience):
        super().__init__(port, patience)
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.stream = -1

    def begin(self):
        """Shake hands, and say that it is HTTP/2."""
        super().begin()
        try:
            self.socket.sendall(PREFACE)
            self.send(SettingsFrame(0))
        except OSError as error:
            raise Loss(f"preface: {error}") from error

    def send(self, frame):
        """One frame."""
        self.socket.sendall(frame.serialize())

    def fill(self):
        """More bytes; only those of the answer count, which are not known yet."""
        Connection.fill(self)

    def request(self, target, close=False, method="GET"):
        """One stream; with `close`, the last one."""
        self.stream += 2
        fields = [(":method", method), (":scheme", "https"), (":authority", "127.0.0.1"), (":path", target)]
        head = HeadersFrame(self.stream, self.encoder.encode(fields), flags=["END_HEADERS", "END_STREAM"])
        try:
            self.send(head)
            answer = self.read_stream()
            if close:
                self.send(GoAwayFrame(0))
                self.open = False
        except OSError as error:
            raise Loss(f"{type(error).__name__}: {error}") from error
        return answer

    def read_frame(self):
        """The next one, and its payload."""
        header = self.read_exactly(9)
        frame, length = Frame.parse_frame_header(memoryview(header))
        frame.parse_body(memoryview(self.read_exactly(length)))
        return frame

    def read_stream(self):
        """Head and body of the present stream."""
        head, body, ended = None, b"", False
        while not ended:
            frame = self.read_frame()
            if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
                self.send(SettingsFrame(0, flags=["ACK"]))
            elif isinstance(frame, PingFrame) and "ACK" not in frame.flags:
                self.send(PingFrame(0, frame.opaque_data, flags=["ACK"]))
            elif isinstance(frame, GoAwayFrame):
                self.open = False
                if frame.last_stream_id < self.stream or frame.error_code:
                    raise Closed(f"GOAWAY {frame.error_code}, last stream {frame.last_stream_id}")
            if frame.stream_id != self.stream:
                continue
            if isinstance(frame, HeadersFrame):
                self.received += 1
                fields = dict(self.decoder.decode(frame.data))
                head = fields if head is None else head  # what comes later are trailers
            elif isinstance(frame, DataFrame):
                body += frame.data
                for stream in (0, self.stream):
                    self.send(WindowUpdateFrame(stream, window_increment=frame.flow_controlled_length or 1))
            elif isinstance(frame, RstStreamFrame):
                raise Closed(f"RST_STREAM {frame.error_code}")
            ended = "END_STREAM" in frame.flags
        if head is None:
            raise Loss("a stream without a head")
        if head.get("content-length", str(len(body))) != str(len(body)):
            raise Loss(f"{len(body)} bytes, and not {head['content-length']}")
        return Answer(int(head[":status"]), head, body)
