//! An order desk in PostgreSQL: its users are connections, its data are dumped, its migration is SQL.

use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Child;

use crate::foreign::site::BOUND;
use crate::foreign::site::Site;
use crate::foreign::site::text;
use crate::foreign::site::write;
use crate::support::eventually;

const TABLES: &str = "CREATE TABLE schema_version (version text); INSERT INTO schema_version VALUES ('1.0'); \
                      CREATE TABLE orders (id serial PRIMARY KEY, customer text, total numeric); \
                      INSERT INTO orders (customer, total) SELECT 'customer ' || i, i FROM generate_series(1, 1000) i; \
                      GRANT SELECT, INSERT ON orders TO orders_user; GRANT USAGE ON SEQUENCE orders_id_seq TO orders_user; \
                      CREATE TABLE jobs (at timestamptz)";
/// What a user does all day.
const WORK: &str = "INSERT INTO orders (customer, total) VALUES ('at the desk', 1);\n\\sleep 50 ms\n";
const COUNT: &str = "SELECT count(*), sum(total) FROM orders";

/// A database server of its own, gone when dropped.
struct Server {
    server: Child,
}

impl Server {
    /// Starts one whose socket is in `/var/lib/postgresql` of the machine.
    async fn start(site: &mut Site) -> Self {
        let dir = site.at("/var/lib/postgresql");
        fs_err::create_dir_all(&dir).expect("a folder");
        site.run(&["chown", "postgres", text(&dir)]).await;
        let programs = programs();
        let (initdb, cluster) = (programs.join("initdb"), dir.join("main"));
        let as_postgres = ["runuser", "-u", "postgres", "--"];
        let init = [text(&initdb), "-D", text(&cluster), "-A", "trust", "-N", "--no-locale", "-E", "UTF8"];
        site.run(&[&as_postgres[..], &init].concat()).await;
        // setpriv, not runuser: what is killed has to be the server itself.
        let mut command = site.command("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=TERM"]);
        command.arg(programs.join("postgres")).arg("-D").arg(&cluster).args([
            "-c",
            "fsync=off",
            "-c",
            "listen_addresses=",
        ]);
        command.arg("-c").arg(format!("unix_socket_directories={}", dir.display()));
        let log = fs_err::File::create(site.at("/postgres.log")).expect("a log").into_parts().0;
        let server = command.stdout(Stdio::null()).stderr(log).spawn().expect("setpriv (Debian package: util-linux)");
        site.set_env("PGHOST", text(&dir).to_owned());
        eventually("the database server accepts connections", BOUND, async || {
            site.command("pg_isready").stdout(Stdio::null()).status().await.is_ok_and(|status| status.success())
        })
        .await;
        Self { server }
    }

    /// Stops it; those who are logged in are put out.
    async fn stop(mut self) {
        self.server.kill().await.expect("it runs");
    }
}

/// Where Debian keeps the server's programs: the newest that is installed.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path());
    let newest = versions.filter(|path| path.join("bin/initdb").exists()).max();
    newest.expect("a database server (Debian package: postgresql)").join("bin")
}

async fn sql(site: &Site, user: &str, database: &str, text: &str) -> String {
    site.run(&["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-U", user, "-d", database, "-c", text]).await
}

/// A release of the order desk: a program that works in the database, and its migration.
fn tree(into: &Path, version: &str, migration: &str, work: &str) {
    let psql = "exec psql -X -q -v ON_ERROR_STOP=1 -U orders_app -d orders";
    write(&into.join("worker"), &format!("#!/bin/sh\n{psql} -f work.sql\n"));
    write(&into.join("work.sql"), &format!("SET application_name = 'orders-{version}';\n{work}\n\\watch 0.05\n"));
    write(&into.join("migrate"), &format!("#!/bin/sh\n{psql} -1 -f migration.sql\n"));
    write(&into.join("migration.sql"), &format!("{migration};\nUPDATE schema_version SET version = '{version}';\n"));
    let lately = format!(
        "SELECT 1 / count(*) FROM pg_stat_activity, (SELECT max(at) AS at FROM jobs) AS jobs \
         WHERE application_name = 'orders-{version}' AND jobs.at > backend_start"
    );
    write(&into.join("check"), &format!("#!/bin/sh\n{psql} -c \"{lately}\"\n"));
}

/// People at their desks; they are put out in the course of the night.
async fn people(site: &Site) -> Child {
    write(&site.at("/desk.sql"), WORK);
    let mut command = site.command(programs().join("pgbench"));
    command.args(["-n", "-T", "600", "-c", "3", "-U", "orders_user", "-f"]).arg(site.at("/desk.sql")).arg("orders");
    let people =
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("pgbench (Debian package: postgresql)");
    eventually("three people are logged in", BOUND, async || {
        let said = site.afterhours(&["session", "list", "orders", "--json"]).await.1;
        said.matches("\"orders_user\"").count() == 3
    })
    .await;
    people
}

#[tokio::test]
async fn an_order_desk_is_migrated_and_a_bad_release_gives_every_row_back() {
    let mut site = Site::new("postgres.toml", "orders", &[]).await;
    let server = Server::start(&mut site).await;
    for role in ["orders_app", "orders_user"] {
        sql(&site, "postgres", "postgres", &format!("CREATE ROLE {role} LOGIN")).await;
    }
    sql(&site, "postgres", "postgres", "CREATE DATABASE orders OWNER orders_app").await;
    sql(&site, "orders_app", "orders", TABLES).await;
    let job = "INSERT INTO jobs VALUES (now())";
    tree(&site.at("/opt/orders"), "1.0", "SELECT 1", job);
    tree(&site.at("/good"), "2.0", "ALTER TABLE orders ADD COLUMN currency text NOT NULL DEFAULT 'EUR'", job);
    site.publish(&site.at("/opt/orders"), "1.0", 1, false).await;
    site.publish(&site.at("/good"), "2.0", 2, true).await;
    site.serve().await;
    let mut people_of_the_first = people(&site).await;
    let (code, said) = site.afterhours(&["doctor", "orders"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("lists 3 sessions"), "{said}");
    let (code, said) = site.afterhours(&["session", "message", "orders", "Good night"]).await;
    assert_ne!(code, 0, "there is no command that tells them: {said}");

    let run = site.night("nightly").await;
    assert_eq!(run["outcome"], "succeeded", "{run:#}");
    let mail = site.mail().await;
    assert!(mail.contains("Subject: Order desk: updated to 2.0"), "{mail}");
    assert_eq!(mail.matches("\n  orders_user").count(), 3, "who was logged out: {mail}");
    let status = people_of_the_first.wait().await.expect("a status");
    assert!(!status.success(), "they were put out");
    assert_eq!(sql(&site, "orders_user", "orders", "SELECT DISTINCT currency FROM orders").await, "EUR");
    let after_first =
        sql(&site, "postgres", "orders", "SELECT count(*) FROM orders").await.parse::<u32>().expect("a number");
    assert!(after_first > 1000, "what they entered is there: {after_first}");

    // It throws a column away, and then its program cannot work with what is left.
    let bad = site.at("/bad");
    tree(
        &bad,
        "3.0",
        "ALTER TABLE orders DROP COLUMN total; CREATE TABLE half_done (x int)",
        "INSERT INTO jobz VALUES (1)",
    );
    site.publish(&bad, "3.0", 3, true).await;
    let mut people_of_the_second = people(&site).await;
    let run = site.night("second").await;
    assert_eq!(run["outcome"], "rolled_back", "{run:#}");
    assert!(!people_of_the_second.wait().await.expect("a status").success(), "they were put out");
    let mail = site.mail().await;
    assert!(mail.contains("Subject: Order desk: update to 3.0 failed, 2.0 is back"), "{mail}");
    assert!(mail.contains("relation \"jobz\" does not exist"), "why: {mail}");
    let there = sql(
        &site,
        "postgres",
        "orders",
        "SELECT to_regclass('half_done') IS NULL, (SELECT version FROM schema_version)",
    )
    .await;
    assert_eq!(there, "t|2.0");
    let (rows, total) = (sql(&site, "orders_user", "orders", COUNT).await, 1000 * 1001 / 2 - 1000);
    let (count, sum) = rows.split_once('|').expect("two numbers");
    let count = count.parse::<u32>().expect("a number");
    assert!(count > after_first, "what was entered before the second night is there, too");
    assert_eq!(sum.parse::<u32>().expect("a number"), total + count, "every order has its total again");
    let bundle = site.at("/bundle.tar.zst");
    let (code, said) = site.afterhours(&["run", "bundle", &run["id"].to_string(), "-o", text(&bundle)]).await;
    assert_eq!(code, 0, "{said}");
    assert!(site.run(&["sh", "-c", "zstd -dc \"$0\" | tar -tf -", text(&bundle)]).await.contains("run.json"));

    site.stop().await;
    let (code, said) = site.afterhours(&["update", "now", "--yes"]).await;
    assert_eq!(code, 0, "nothing is left to do: {said}");
    server.stop().await;
}
