"""URLs that must not be fetched, and URLs that must be. `{port}` is where somebody listens on loopback."""

ADDRESSES = {
    "IPv4": "127.0.0.1 127.0.0.2 127.255.255.254 0.0.0.0 0.1.2.3 10.0.0.1 172.16.0.1 172.31.255.254 "
    "192.168.0.1 169.254.0.1 169.254.169.254 100.64.0.1 100.100.100.200 168.63.129.16 192.0.0.192 192.0.2.1 "
    "198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255",
    "IPv6": "::1 :: ::127.0.0.1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:7f00:1 ::ffff:0:7f00:1 ::ffff:10.0.0.1 "
    "::ffff:169.254.169.254 ::ffff:0.0.0.0 64:ff9b::7f00:1 64:ff9b::10.0.0.1 64:ff9b::a9fe:a9fe "
    "64:ff9b:1::7f00:1 2002:7f00:1:: 2002:a9fe:a9fe::1 2002:c0a8:1::1 2001:0:7f00:1:: 2001:2::1 2001:10::1 "
    "2001:db8::1 3fff::1 5f00::1 100::1 fc00::1 fd00:ec2::254 fd20:ce::254 fe80::1 fec0::1 ff02::1 ff0e::1 "
    "0:0:0:0:0:0:0:1",
}
"""Addresses that are nobody's on the open internet."""

NOTATIONS = {
    "short": "127.1 127.0.1 127.0.0.1.",
    "decimal": "2130706433 2852039166 3232235521 167772161 6425673729 0",
    "hexadecimal": "0x7f000001 0x7f.0.0.1 0x7F.0X0.0.1 0x7f.1 0xa9fea9fe 0x0a.0x00.0x00.0x01 0x17f000001",
    "octal": "0177.0.0.1 017700000001 0177.1 0251.0376.0251.0376 127.0.0.01 000127.0.0.1",
    "not quite": "256.256.256.256 1.2.3.4.5 127.0.0.1%00.example %31%32%37.0.0.1 127.0.0.1%2f 127..0.1",
    "unicode": "①②⑦.⓪.⓪.① 127。0。0。1 \uff11\uff12\uff17.\uff10.\uff10.\uff11 𝟏𝟐𝟕.0.0.1 ⓛⓞⓒⓐⓛⓗⓞⓢⓣ "
    "loc\xadalhost localhost\u200b ʟocalhost \u202elocalhost 127.0.0.1\u2044.example",
    "IPv6": "[::1%251] [fe80::1%25lo] [fe80::1%lo] [v1.fe80] [::1 [::g] [127.0.0.1] [::ffff:127.1] [[::1]]",
    "names": "localhost LOCALHOST localhost. localhost.. a.localhost localhost.localdomain ip6-localhost",
}
"""Hosts that come down to such an address, or to nothing, however they are read."""

NAMES = {
    "metadata.google.internal": ["169.254.169.254"],
    "private.example": ["10.0.0.1"],
    "loopback.example": ["127.0.0.1"],
    "six.example": ["::1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "local.example": ["fe80::1"],
    "several.example": ["10.0.0.1", "127.0.0.1", "::1", "192.168.0.1"],
    "many.example": ["127.0.0.1"] * 50,
    "nowhere.example": ["0.0.0.0", "::"],
}
"""Names, and what DNS says of them."""

CREDENTIALS = (
    "http://user@127.0.0.1:{port}/",
    "http://user:secret@127.0.0.1:{port}/",
    "http://:secret@127.0.0.1:{port}/",
    "http://loopback.example:80@127.0.0.1:{port}/",
    "http://user:secret@private.example@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\@private.example/",
    "http://private.example\\@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}#@private.example/",
    "http://127.0.0.1:{port}?@private.example/",
    "http://127.0.0.1:{port};@private.example/",
    "http://user%40private.example@127.0.0.1:{port}/",
)

SCHEMES = (
    *("file:///etc/passwd", "file://localhost/etc/passwd", "file://127.0.0.1/etc/passwd", "FILE:///etc/passwd"),
    *("ftp://127.0.0.1:{port}/a", "gopher://127.0.0.1:{port}/_GET", "dict://127.0.0.1:{port}/d:a", "ws://127.0.0.1:{port}/"),
    *("ldap://127.0.0.1:{port}/", "tftp://127.0.0.1:{port}/a", "ssh://127.0.0.1:{port}/", "redis://127.0.0.1:{port}/"),
    *("jar:http://127.0.0.1:{port}!/a", "view-source:http://127.0.0.1:{port}/", "feed:http://127.0.0.1:{port}/"),
    *("blob:http://127.0.0.1:{port}/1", "http+unix://%2Frun%2Fdocker.sock/info", "unix:///run/docker.sock"),
    *("data:image/png;base64,AAAA", "javascript:alert(1)", "about:blank", "mailto:a@private.example"),
    *("s3://private/a.jpg", "gs://private/a.jpg", "az://private/a.jpg", "urn:a:b", "http"),
    *("http:", "http://", "https://", "http:/127.0.0.1:{port}/"),
    *("//127.0.0.1:{port}/a", "\\\\127.0.0.1\\share\\a.jpg", "http:127.0.0.1:{port}/"),
    *("http:///127.0.0.1:{port}/", "http:\\\\127.0.0.1:{port}\\", "htp://127.0.0.1:{port}/"),
    *("http ://127.0.0.1:{port}/", "127.0.0.1:{port}/a.jpg", "a.jpg", "/etc/passwd", "", " "),
)  # fmt: skip

MALFORMED = (
    "http://127.0.0.1:{port}/" + "a" * 9_000,
    "http://127.0.0.1:{port}/?" + "a=b&" * 5_000,
    "http://" + "a" * 64 + ".example/",
    "http://" + "a." * 200 + "example/",
    "http://" + "1" * 5_000 + "/",
    "http://127.0.0.1:0/",
    "http://127.0.0.1:65536/",
    "http://127.0.0.1:-1/",
    "http://127.0.0.1:port/",
    "http://127.0.0.1:{port}:{port}/",
    "http://:{port}/",
    "http://.:{port}/",
    "http://-:{port}/",
    "http://127.0.0.1 :{port}/",
    "http://127.0.0.1\t:{port}/",
    "http://127.0.0.1:{port}/\x00.jpg",
    "http://127.0.0.1:{port}/\r\nHost: private.example\r\n\r\n",
    "http://127.0.0.1:{port}/ HTTP/1.1\nX: y",
    "http://\ud800/",
    "http://127.0.0.1:{port}/\udfff",
    "http://exa\u0000mple:{port}/",
    "http://*:{port}/",
    "http://$HOME:{port}/",
    "http://%:{port}/",
    "http://%zz:{port}/",
    "http://{{host}}:{port}/",
    "http://127.0.0.1%0d%0a:{port}/",
)


def refused(port: int) -> list[str]:
    """All URLs that must not be fetched; names are those of `names`."""
    hosts = [
        f"[{address}]" if kind == "IPv6" else address
        for kind, group in ADDRESSES.items()
        for address in group.split()
    ]
    hosts += [host for group in NOTATIONS.values() for host in group.split()] + list(names())
    urls = [f"http://{host}:{port}/a.jpg" for host in hosts]
    urls += [f"https://{host}/a.jpg" for host in hosts[:6]]
    rest = (*CREDENTIALS, *SCHEMES, *MALFORMED)
    return urls + [url.replace("{port}", str(port)) for url in rest]


def names() -> dict[str, list[str]]:
    """What DNS says: a name for each address, besides those above."""
    addresses = " ".join(ADDRESSES.values()).split()
    return {**NAMES, **{f"n{number}.example": [address] for number, address in enumerate(addresses)}}


WELCOME = {
    "http://photos.example:{port}/a.jpg": "/a.jpg",
    "HTTP://PHOTOS.EXAMPLE:{port}/A.jpg": "/A.jpg",
    "  http://photos.example:{port}/a.jpg  ": "/a.jpg",
    "http://photos.example.:{port}/dot.jpg": "/dot.jpg",
    "http://photos_1.example:{port}/underscore.jpg": "/underscore.jpg",
    "http://bücher.example:{port}/idn.jpg": "/idn.jpg",
    "http://BÜCHER.example:{port}/upper.jpg": "/upper.jpg",
    "http://xn--bcher-kva.example:{port}/punycode.jpg": "/punycode.jpg",
    "http://例え.テスト:{port}/japanese.jpg": "/japanese.jpg",
    "http://bu\u0308cher.example:{port}/decomposed.jpg": "/decomposed.jpg",
    "http://127.0.0.3:{port}/literal.jpg": "/literal.jpg",
    "http://photos.example:{port}/home 1/a b.jpg": "/home%201/a%20b.jpg",
    "http://photos.example:{port}/home%201/a%20b.jpg": "/home%201/a%20b.jpg",
    "http://photos.example:{port}/kök/å.jpg": "/k%C3%B6k/%C3%A5.jpg",
    "http://photos.example:{port}/😀.jpg": "/%F0%9F%98%80.jpg",
    "http://photos.example:{port}/a+b;c=d,e'(f)!*.jpg": "/a+b;c=d,e'(f)!*.jpg",
    "http://photos.example:{port}/a|b^c`.jpg": "/a%7Cb%5Ec%60.jpg",
    'http://photos.example:{port}/"quoted".jpg': "/%22quoted%22.jpg",
    "http://photos.example:{port}/a%2Fb%3F.jpg": "/a%2Fb%3F.jpg",
    "http://photos.example:{port}/double//slash.jpg": "/double//slash.jpg",
    "http://photos.example:{port}/a/./b/../c.jpg?x": "/a/./b/../c.jpg?x",
    "http://photos.example:{port}": "/",
    "http://photos.example:{port}?id=7": "/?id=7",
    "http://photos.example:{port}/a.jpg#part": "/a.jpg",
    "http://photos.example:{port}/a.jpg?w=800&w=900&empty=&flag": "/a.jpg?w=800&w=900&empty=&flag",
    "http://photos.example:{port}/a.jpg?u=http://127.0.0.1/x": "/a.jpg?u=http://127.0.0.1/x",
    "http://photos.example:{port}/s.jpg?X-Amz-Signature=a%2Fb%3d+c": "/s.jpg?X-Amz-Signature=a%2Fb%3d+c",
    "http://photos.example:{port}/s.jpg?sig=%7e~%2B+&se=1%3A00Z": "/s.jpg?sig=%7e~%2B+&se=1%3A00Z",
    "http://photos.example:{port}/long.jpg?" + "p=" + "x" * 7_000: "/long.jpg?p=" + "x" * 7_000,
}
"""URL -> what the host is asked for."""

WELCOME_NAMES = ("photos.example", "photos_1.example", "xn--bcher-kva.example", "xn--r8jz45g.xn--zckzah")
