"""A Kerberos realm on loopback: Debian's KDC with files and a port of its own, for a cluster that asks for tickets.

Needs `krb5kdc`, `kdb5_util` and `kadmin.local` (Debian: krb5-kdc, krb5-admin-server), and `kinit` (krb5-user) to get a
ticket. Nothing outside of the realm's folder is read or written.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

REALM = "SEGPIPE.TEST"
SERVICES = ("nn", "dn", "rm", "nm", "HTTP")
_TOOLS = ("krb5kdc", "kdb5_util", "kadmin.local", "kinit")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def missing_tools() -> list[str]:
    """The programs of a KDC that this machine lacks."""
    return [tool for tool in _TOOLS if not shutil.which(tool, path=f"{os.environ.get('PATH', '')}:{_PATH}")]


@dataclass(frozen=True)
class Realm:
    """A realm's folder and the port of its KDC."""

    folder: Path
    port: int

    @property
    def conf(self) -> Path:
        """krb5.conf, for KRB5_CONFIG and Java's java.security.krb5.conf."""
        return self.folder / "krb5.conf"

    @property
    def keytab(self) -> Path:
        """The keys of all services of the cluster."""
        return self.folder / "services.keytab"

    @property
    def environment(self) -> dict[str, str]:
        """What programs need to find this realm and no other."""
        return {
            "KRB5_CONFIG": str(self.conf),
            "KRB5_KDC_PROFILE": str(self.folder / "kdc.conf"),
            "JAVA_TOOL_OPTIONS": f"-Djava.security.krb5.conf={self.conf}",
        }

    def make(self) -> None:
        """Write the configuration, and on the first time the database and the services' keys."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.conf.write_text(
            f"[libdefaults]\n default_realm = {REALM}\n dns_lookup_kdc = false\n dns_lookup_realm = false\n"
            " rdns = false\n dns_canonicalize_hostname = false\n udp_preference_limit = 1\n ticket_lifetime = 1h\n"
            f"[realms]\n {REALM} = {{\n  kdc = 127.0.0.1:{self.port}\n }}\n"
            f"[domain_realm]\n localhost = {REALM}\n"
        )
        (self.folder / "kdc.conf").write_text(
            f"[kdcdefaults]\n kdc_listen = 127.0.0.1:{self.port}\n kdc_tcp_listen = 127.0.0.1:{self.port}\n"
            f"[realms]\n {REALM} = {{\n"
            f"  database_name = {self.folder}/principal\n  key_stash_file = {self.folder}/stash\n"
            "  max_life = 10h\n  supported_enctypes = aes256-cts-hmac-sha1-96:normal\n }\n"
            f"[logging]\n kdc = FILE:{self.folder}/kdc.log\n"
        )
        if self.keytab.exists():
            return
        self._run("kdb5_util", "create", "-s", "-r", REALM, "-P", secrets.token_hex(16))
        self.add((f"{service}/localhost" for service in SERVICES), self.keytab)

    def add(self, principals: Iterable[str], keytab: Path) -> None:
        """Make principals with random keys and put these into a keytab."""
        for principal in principals:
            self._run("kadmin.local", "-q", f"addprinc -randkey {principal}")
            self._run("kadmin.local", "-q", f"ktadd -k {keytab} {principal}")

    def command(self) -> list[str]:
        """The KDC in the foreground."""
        return [self._find("krb5kdc"), "-n", "-r", REALM]

    def sites(self, user: str) -> dict[str, dict[str, str]]:
        """Hadoop's settings for this realm, by configuration file; services act as `user`, who started them."""
        services = {
            "dfs.namenode": ("nn", "keytab.file", "kerberos.principal"),
            "dfs.datanode": ("dn", "keytab.file", "kerberos.principal"),
            "yarn.resourcemanager": ("rm", "keytab", "principal"),
            "yarn.nodemanager": ("nm", "keytab", "principal"),
        }
        found: dict[str, dict[str, str]] = {
            "core-site": {
                "hadoop.security.authentication": "kerberos",
                "hadoop.security.authorization": "true",
                "hadoop.rpc.protection": "privacy",
                "hadoop.security.auth_to_local": f"RULE:[2:$1]({'|'.join(SERVICES)})s/.*/{user}/\nDEFAULT",
            },
            "hdfs-site": {
                "dfs.block.access.token.enable": "true",
                "dfs.data.transfer.protection": "privacy",
                # Data nodes want TLS on their web pages beside encrypted data, and certificates; not needed here.
                "ignore.secure.ports.for.testing": "true",
                "dfs.web.authentication.kerberos.principal": f"HTTP/localhost@{REALM}",
                "dfs.web.authentication.kerberos.keytab": str(self.keytab),
                "dfs.namenode.kerberos.internal.spnego.principal": f"HTTP/localhost@{REALM}",
            },
            "yarn-site": {},
        }
        for prefix, (service, keytab, principal) in services.items():
            site = found["hdfs-site" if prefix.startswith("dfs") else "yarn-site"]
            site[f"{prefix}.{keytab}"] = str(self.keytab)
            site[f"{prefix}.{principal}"] = f"{service}/localhost@{REALM}"
        return found

    def _find(self, tool: str) -> str:
        return shutil.which(tool, path=f"{os.environ.get('PATH', '')}:{_PATH}") or tool

    def _run(self, tool: str, *words: str) -> None:
        subprocess.run([self._find(tool), *words], check=True, capture_output=True, env=os.environ | self.environment)
