//! The tables and keys of `app.toml`: type, default, when a change takes effect, which kind of app a key is for, and
//! one sentence. To add a key, add a row here and use it in `plan/`. tests/keys.rs then requires matching entries in the
//! manual and the sample file, and plan/tests/keys.rs an effect on the plan.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use preforkd_worker::front::Protocol;
use preforkd_worker::proxy::Proxy;
use preforkd_worker::settings::{MAX_CONNECTIONS, MAX_THREADS};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess};
use toml::Spanned;

use super::certified::{Certified, Challenge};
use super::command_line::CommandLine;
use super::hsts::Hsts;
use super::layers::{Asked, Forwarded, Maintained, PerTime};
use super::listen::{Address, Entry};
use super::mapping::{Mapped, Precompressed};
use super::proceeding::{Proceeding, When};
use super::rights::{Capability, Cpus, Integer, Limit, Port};
use super::route::{Answered, Redirected};
use super::schedule::{Expression, Scheduled};
use super::static_files::StaticFiles;
use super::table::{Apps, DefaultValue, Key, Table, TakesEffect, Value, Written, tables};
use super::units::{Size, Time};
use super::value::{
    AccessLog, ClientCertificate, FixedWorkers, GroupName, MAX_WORKERS, Mode, NO_LIMIT, Number,
    Ready, Replace, Restart, Stdin, StopSignal, Then, Typed, UserName, Workers,
};

tables! {
    /// The keys before all tables.
    table "" File {
        /// More files of the configuration, by paths that may have wildcards.
        include: Vec<Spanned<String>> = [], Reload;
    }

    /// `[master]`: what concerns the master itself.
    table "master" Master {
        /// The Unix socket at which the commands status, metrics, reload, scale, stop and reopen reach the master.
        control: PathBuf = (none "beside pid_file, else in $RUNTIME_DIRECTORY, else in a folder of the user of the master"), Reload;
        /// The permission bits of that socket; whoever may write to it may send all commands.
        control_mode: Mode = (none "0600, with control_group 0660"), Reload;
        /// The group of that socket.
        control_group: GroupName = (none "the group of the master"), Reload;
        /// The file to which the master writes its process ID.
        pid_file: PathBuf = (none "none"), Reload;
        /// The folder for what outlasts a restart: certificates that were issued, and the accounts for that.
        state: PathBuf = (none "$STATE_DIRECTORY, else /var/lib/preforkd"), Reload;
        /// Where a process of its own answers /metrics, in the text format of Prometheus, /healthz and /readyz.
        metrics: Vec<Spanned<Entry>> = [], Reload;
        /// How long all apps go on serving after the order to stop, while /readyz says 503.
        lame_duck: Time = (none "none"), Reload;
    }

    /// `[app.NAME]`: a pool of like workers.
    table "app.NAME" App {
        /// The WSGI application to serve, as MODULE:CALLABLE.
        wsgi: String = (none "none"), Reload;
        /// The program to run, with its arguments.
        command: CommandLine = (none "none"), Reload;
        /// Whether the app runs without being started by `preforkd start`.
        enabled: bool = true, Reload;

        /// When to run the program, once each time, instead of keeping workers: a cron expression, or a table.
        schedule: Scheduled = (none "none"), Reload, only Command;

        /// The sockets that all workers of the app share.
        listen: Vec<Spanned<Entry>> = [], Reload;
        /// How many connections may wait in each listener until a worker accepts them.
        backlog: Number<0, NO_LIMIT> = 2048, Reload;
        /// The number of workers; "auto" is the number of CPUs that the master may use.
        workers: Workers = 1, Reload;

        /// The working directory of the workers.
        chdir: PathBuf = (none "the folder of the configuration file"), Reload;
        /// The user that the workers run as.
        user: UserName = (none "the user of the master"), Reload;
        /// The primary group of the workers.
        group: GroupName = (none "the primary group of user, else the group of the master"), Reload;
        /// Groups of the workers besides those that the system has for `user`.
        groups: Vec<Spanned<GroupName>> = [], Reload;
        /// The file mode creation mask of the workers.
        umask: Mode = (none "the mask of the master"), Reload;
        /// Variables to add to the environment of the workers.
        env: BTreeMap<Spanned<String>, String> = {}, Reload;
        /// Files with more such variables, as NAME=VALUE lines.
        env_file: Vec<Spanned<PathBuf>> = [], Reload;
        /// Variables with the content of files: "credential:NAME" of the init system, or "file:PATH".
        secrets: BTreeMap<Spanned<String>, Spanned<String>> = {}, Reload;

        /// Whether the workers inherit no variables of the master but PATH, TZ and those of the language.
        env_clear: bool = false, Reload;

        /// Whether no program that the workers execute gives them more rights, as sudo or ping would.
        no_new_privs: bool = true, Reload;
        /// The capabilities that the workers have; all others are taken from them.
        capabilities: Vec<Spanned<Capability>> = (none "all of the master if they run as root, else none"), Reload;
        /// The resources that each process of the app may use.
        limits: Limits = {}, Reload;
        /// How soon the kernel ends a worker when memory runs out: the greater the number, the sooner.
        oom_score_adj: Integer<-1000, 1000> = (none "that of the master"), Reload;
        /// The nice value of the workers: the greater the number, the less CPU time they get beside others.
        nice: Integer<-20, 19> = (none "that of the master"), Reload;
        /// The CPUs that the workers run on, as numbers or ranges.
        cpu_affinity: Vec<Cpus> = (none "those of the master"), Reload;
        /// The files and TCP ports that the workers may reach.
        landlock: Landlock = (none "all"), Reload;

        /// The file to which the standard output of the workers goes.
        stdout: PathBuf = (none "standard output of the master"), Reload;
        /// The file to which the standard error of the workers goes.
        stderr: PathBuf = (none "standard error of the master"), Reload;

        /// Whether to put the app and the slot before each line that a program writes.
        prefix_output: bool = false, Reload, only Command;
        /// The permissions of these files.
        log_mode: Mode = (none "what the umask of the master leaves"), Reload;
        /// The owner of these files.
        log_owner: UserName = (none "the user of the log writer"), Reload;
        /// The group of these files.
        log_group: GroupName = (none "the group of the log writer"), Reload;
        /// When to continue in a new file, and how many of the old ones to keep.
        log_rotate: LogRotate = (none "never"), Reload;

        /// The apps that come before this one: it is started when they are ready, and they are told to end when it has ended.
        after: Vec<Spanned<String>> = [], Reload;
        /// Whether preforkd is ready only when this app is; otherwise it is tried in the background and holds up no other app.
        required: bool = true, Reload;

        /// A worker that is not ready after this time has failed.
        start_timeout: Time = "60s", Reload;
        /// How long a worker that is told to end may take to finish what it serves, before it is killed.
        graceful_timeout: Time = "30s", Reload;
        /// How long a worker that hangs, or was not ready in time, may take to report what it is doing, before it is killed.
        abort_grace: Time = "2s", Reload;
        /// When to stop replacing workers that fail again and again.
        give_up: GiveUp = (none "never"), Reload;
        /// How a reload proceeds.
        reload: Proceeding = {}, Reload;
        /// How many requests of sites wait when all workers are busy, and for how long.
        queue: Queue = {}, Reload;
        /// How long sites wait for the workers, and when they leave one alone.
        upstream: Upstream = {}, Reload;

        /// The age at which a worker is replaced by a fresh one.
        max_age: Time = (none "none"), Reload;
        /// The share of memory (PSS) above which a worker is replaced by a fresh one, with all processes of its session.
        max_memory: Size = (none "none"), Reload;

        /// When a worker counts as ready: when it sends READY=1, when its program has run for a second, or when it has run for this time.
        ready: Ready = (none "notify, with restart = never exec"), Reload, only Command;
        /// When a worker that has ended of itself is started again.
        restart: Restart = "always", Reload, only Command;
        /// Whether the new worker starts first when it takes the place of an old one, or the old one ends first.
        replace: Replace = "start-first", Reload, only Command;
        /// The apps that wait until this one has finished: the release of which it is a task is refused if it fails.
        run_before: Vec<Spanned<String>> = [], Reload, only Command;
        /// A worker that does not send WATCHDOG=1 for this time hangs; it is killed and replaced.
        watchdog: Time = (none "none"), Reload, only Command, else "timeout";
        /// The addresses of which each worker gets one for {address} and {port}: an IP address, and a range of ports if not any free port will do.
        addresses: String = "127.0.0.1", Reload, only Command;
        /// What the workers speak with sites.
        protocol: Protocol = "http", Reload, only Command;
        /// The folder of the scripts that answer requests, for FastCGI.
        root: PathBuf = (none "none"), Reload, only Command;
        /// The script that answers for a folder, and for what is no file; "" is none.
        index: String = "index.php", Reload, only Command;
        /// The standard input of a worker: nothing, or its first listener.
        stdin: Stdin = "null", Reload, only Command;
        /// The signal that tells a worker to end.
        stop_signal: StopSignal = (none "QUIT for nginx and php-fpm, else TERM"), Reload, only Command;
        /// Send the signal that tells a worker to end to its whole process group.
        stop_group: bool = false, Reload, only Command;

        /// The Python interpreter.
        python: PathBuf = (none "the first that exists of the Python that runs preforkd as a module, .venv/bin/python, venv/bin/python, $VIRTUAL_ENV/bin/python, the Python of the virtual environment that preforkd is installed in, and python3 in $PATH"), Reload, only Wsgi;
        /// The number of threads in each worker that call the application.
        threads: Number<1, MAX_THREADS> = 1, Reload, only Wsgi;
        /// A worker that is in one request for longer than this hangs; it is killed and replaced.
        timeout: Time = "30s", Reload, only Wsgi, else "watchdog";
        /// The file to which each worker writes a line for each response; "-" for standard output, or a syslog server.
        access_log: AccessLog = (none "none"), Reload, only Wsgi;
        /// The form of a line of the access log: "combined", "json", or a text with names of fields in braces.
        access_format: String = "combined", Reload, only Wsgi;
        /// Give each request a name, which the application gets in HTTP_X_REQUEST_ID and the response has in X-Request-ID.
        request_id: bool = false, Reload, only Wsgi;
        /// Import the application once, in a template process, and fork the workers from it, so that they share its memory.
        preload: bool = false, Reload, only Wsgi;
        /// A module of the application with functions to call when workers are forked, start and stop.
        hooks: String = (none "none"), Reload, only Wsgi;
        /// The proxies that may say which client they ask for, and with which URL.
        trusted_proxies: Vec<Proxy> = [], Reload, only Wsgi;
        /// The fields about the client that these proxies set; the others are removed, as clients may have written them.
        forwarded_fields: Vec<Spanned<String>> = (none "all"), Reload, only Wsgi;
        /// Each connection begins with a PROXY header, which names the client; only trusted proxies may connect.
        proxy_protocol: bool = false, Reload, only Wsgi;
        /// The path below which a proxy serves the application: its SCRIPT_NAME.
        prefix: String = (none "none"), Reload, only Wsgi;
        /// Folders and files to serve below a prefix of the URL, without entering Python.
        static_files as "static": StaticFiles = {}, Reload, only Wsgi;
        /// The longest request line and header section together; a longer one is answered with 414 or 431.
        max_head: Size = "32KiB", Reload, only Wsgi;
        /// The most header lines of a request; more are answered with 431.
        max_headers: Number<1, 256> = 100, Reload, only Wsgi;
        /// The largest request body; a larger one is answered with 413.
        max_body: Size = "64MiB", Reload, only Wsgi;
        /// A request body larger than this goes to a temporary file.
        body_in_memory: Size = "256KiB", Reload, only Wsgi;
        /// The part of a response that the client has not received stays in memory up to this size; more goes to a temporary file.
        response_in_memory: Size = "256KiB", Reload, only Wsgi;
        /// The largest temporary file for one response; when it is full, the thread waits for the client.
        response_in_file: Size = "64MiB", Reload, only Wsgi;
        /// The most that one worker may hold of request bodies and responses together, in memory and in temporary files.
        max_buffered: Size = "1GiB", Reload, only Wsgi;
        /// How long the head of a request may take to arrive.
        header_timeout: Time = "10s", Reload, only Wsgi;
        /// The longest pause between two pieces of a request body.
        body_timeout: Time = "30s", Reload, only Wsgi;
        /// How long sending a response may make no progress before the connection is closed.
        write_timeout: Time = "30s", Reload, only Wsgi;
        /// How long an idle connection is kept open for its next request.
        keepalive_timeout: Time = "30s", Reload, only Wsgi;
        /// The number of responses after which a worker is replaced by a fresh one.
        max_requests: Number<1, NO_LIMIT> = (none "none"), Reload, only Wsgi;
        /// Each worker adds a random number up to this one to `max_requests`, so that workers do not end together.
        max_requests_jitter: Number<0, NO_LIMIT> = 0, Reload, only Wsgi;
        /// The most connections that one worker has open at a time.
        max_connections: Number<1, MAX_CONNECTIONS> = 1000, Reload, only Wsgi;
    }

    /// `workers` as a table: the number follows the load.
    table "app.NAME.workers" Range {
        /// The least number of workers; with 0, an app that nobody uses has no worker.
        min: Number<0, MAX_WORKERS> = (required), Reload;
        /// The greatest number of workers.
        max: Number<1, MAX_WORKERS> = (required), Reload;
        /// How many workers should be idle while others are busy.
        spare: Number<0, NO_LIMIT> = 1, Reload;
        /// A worker that was not needed for this time ends.
        idle_timeout: Time = "60s", Reload;
    }

    /// `schedule` as a table: when to run the program, and for how long.
    table "app.NAME.schedule" Schedule {
        /// The times, as minute, hour, day of the month, month and day of the week; or @hourly, @daily, @weekly, @monthly, @yearly.
        cron: Expression = (required), Reload;
        /// The time zone of these times.
        timezone: String = (none "the time zone of the machine"), Reload;
        /// How long a run may take before it is told to end.
        timeout: Time = (none "none"), Reload;
    }

    /// `landlock`: what processes may reach.
    table "app.NAME.landlock" Landlock {
        /// The files and folders that may be read and executed, with all below them.
        read: Vec<Spanned<PathBuf>> = (none "all"), Reload;
        /// The files and folders that may be changed too.
        write: Vec<Spanned<PathBuf>> = [], Reload;
        /// The TCP ports that processes may connect to.
        connect: Vec<Port> = (none "all"), Reload;
        /// The TCP ports that processes may bind.
        bind: Vec<Port> = (none "all"), Reload;
        /// Whether it is an error if the kernel cannot restrict all of this.
        required: bool = false, Reload;
    }

    /// `limits`: what a process may use, as in setrlimit(2).
    table "app.NAME.limits" Limits {
        /// The size of its address space.
        address_space as "as": Limit = (none "that of the master"), Reload;
        /// The size of a core file.
        core: Limit = (none "that of the master"), Reload;
        /// The CPU time that it uses, in seconds.
        cpu: Limit = (none "that of the master"), Reload;
        /// The size of its data.
        data: Limit = (none "that of the master"), Reload;
        /// The size of a file that it writes.
        fsize: Limit = (none "that of the master"), Reload;
        /// The memory that it keeps from being swapped out.
        memlock: Limit = (none "that of the master"), Reload;
        /// The number of descriptors that it has open.
        nofile: Limit = (none "that of the master"), Reload;
        /// The number of processes and threads of its user.
        nproc: Limit = (none "that of the master"), Reload;
        /// The size of its stack.
        stack: Limit = (none "that of the master"), Reload;
    }

    /// `log_rotate`: when to continue in a new log file.
    table "app.NAME.log_rotate" LogRotate {
        /// The size that a log file may have.
        size: Size = (required), Reload;
        /// How many old files to keep.
        keep: Number<1, 1000> = 5, Reload;
    }

    /// `give_up`: when to stop replacing workers that fail.
    table "app.NAME.give_up" GiveUp {
        /// The number of failures.
        crashes: Number<1, NO_LIMIT> = (required), Reload;
        /// The time in which they happen.
        within: Time = (required), Reload;
        /// What happens then: "degrade" keeps the workers that run and starts none until the next reload, and refuses clients when none runs any more; "exit" stops the master with status 3.
        then: Then = "degrade", Reload;
    }

    /// `[app.NAME.reload]`: how a reload proceeds.
    table "app.NAME.reload" Reload {
        /// Which reloads replace the workers: all of them, or those that find the table changed.
        when: When = "always", Reload;
        /// A program, with its arguments, that must end with status 0 before any worker is started.
        before: CommandLine = (none "none"), Reload;
        /// Whether that program runs at the first start too, before all workers.
        before_at_start: bool = false, Reload;
        /// What the first worker of the new generation must pass: a request, a connection or a program.
        check: Check = (none "none"), Reload;
        /// How long the first worker of the new generation must live after it is ready, before the others follow.
        soak: Time = (none "none"), Reload;
        /// How many older generations may still finish what they serve.
        max_draining: Number<1, NO_LIMIT> = 4, Reload;
        /// How many workers more than wanted may exist while the new generation takes over.
        surge: Number<1, NO_LIMIT> = (none "a quarter of the workers, rounded up"), Reload;
    }

    /// `queue`: the requests of sites that wait for a worker.
    table "app.NAME.queue" Queue {
        /// The most requests that wait in all workers of the front together; more are answered with 503.
        length: Number<0, NO_LIMIT> = 1000, Reload;
        /// How long a request waits before it is answered with 503.
        timeout: Time = "10s", Reload;
    }

    /// `upstream`: how sites deal with the workers of the app.
    table "app.NAME.upstream" Upstream {
        /// How long a connection to a worker may take to come about.
        connect_timeout: Time = "5s", Reload;
        /// How long a worker may take from the whole request to the head of its response, before the client gets 504.
        response_timeout: Time = (none "60s, or 5s more than timeout if that is longer"), Reload;
        /// How long a worker may pause while it takes a request or sends a response.
        idle_timeout: Time = "60s", Reload;
        /// After so many failures one after the other a worker is left alone for a while; 0 is never.
        max_fails: Number<0, NO_LIMIT> = 3, Reload;
        /// The time in which these failures come, and for which the worker is left alone.
        fail_timeout: Time = "10s", Reload;
    }

    /// `check`: a request and its answer, a connection, or a program.
    table "app.NAME.reload.check" Check {
        /// The path and query to ask for.
        path: String = (none "none"), Reload;
        /// A program, with its arguments, that must end with status 0, instead of a request.
        command: CommandLine = (none "none"), Reload;
        /// The Host field of the request.
        host: String = "localhost", Reload;
        /// The status that the answer must have.
        expect: Number<200, 599> = 200, Reload;
        /// How long an attempt may take.
        timeout: Time = "5s", Reload;
        /// The number of attempts, half a second apart.
        attempts: Number<1, NO_LIMIT> = 3, Reload;
        /// The time between checks of workers that serve; without it, only the first worker of a generation is checked.
        every: Time = (none "none"), Reload;
        /// How many of these checks must fail in a row before a worker is replaced.
        failures: Number<1, NO_LIMIT> = 3, Reload;
    }

    /// An entry of `static` as a table: a folder or a file, and how to serve it.
    table "app.NAME.static" Mapping {
        /// The folder, or the file if the prefix does not end with a slash.
        folder: PathBuf = (required), Reload;
        /// How long clients may use their copy of a file without asking again.
        max_age: Time = (none "what each client thinks"), Reload;
        /// Tells clients that a file never changes under its name, so that they do not ask even when a page is reloaded.
        immutable: bool = false, Reload;
        /// Fields to add to each response with a file.
        headers: BTreeMap<Spanned<String>, Spanned<String>> = {}, Reload;
        /// The file that is served for a folder; "" is none.
        index: String = "index.html", Reload;
        /// Whether the application answers where there is no file.
        fallthrough: bool = (none "true for the prefix /, else false"), Reload;
        /// Whether to serve compressed files that lie beside the original, with .br, .zst or .gz after its name.
        precompressed: Precompressed = false, Reload;
    }

    /// An entry of `listen` as a table: an address, and how to bind it.
    table "app.NAME.listen" Listen {
        /// The address to listen on.
        address: Address = (required), Reload;
        /// The name of the listener in LISTEN_FDNAMES and {fd:NAME}.
        name: String = (none "the name of the app"), Reload;
        /// The permissions of a Unix socket.
        mode: Mode = (none "what the umask of the master leaves"), Reload;
        /// The owner of a Unix socket.
        owner: UserName = (none "the user of the master"), Reload;
        /// The group of a Unix socket.
        group: GroupName = (none "the group of the master"), Reload;
    }

    /// `[site.NAME]`: names, and what is served under them.
    table "site.NAME" Site with layers: Layers {
        /// The sockets at which the site is served; several sites may have the same one.
        listen: Vec<Spanned<Entry>> = (required), Reload;
        /// The hosts that the site is for, such as "shop.example.com" or "*.example.com"; without any it takes what no other site at its addresses takes.
        hosts: Vec<Spanned<String>> = [], Reload;
        /// The certificates of the site, each with its key, or "auto", which has one issued; with them its addresses speak TLS.
        tls: Vec<Spanned<Certified>> = [], Reload;
        /// The file with the certificates of the authorities that issue those of clients, in PEM; with it clients are asked for theirs.
        client_ca: PathBuf = (none "none"), Reload;
        /// Whether a client must show a certificate of these authorities, or may.
        client_certificate: ClientCertificate = "required", Reload;
        /// Tells clients to come back with TLS only, for a year or as the text of Strict-Transport-Security says.
        hsts: Hsts = false, Reload;
        /// The app that gets all requests that no route and no static file is for.
        app: String = (none "none"), Reload;
        /// Folders and files to serve below a prefix of the URL.
        static_files as "static": StaticFiles = {}, Reload;
        /// Which requests go where; what none of the routes is for is answered with 404.
        routes: Vec<Spanned<Route>> = [], Reload;
        /// Where to send all requests that no route and no static file is for: "https", or a location.
        redirect: Redirected = (none "nowhere"), Reload;
        /// The most connections that the site has open in all workers together; requests over further ones get 503.
        max_connections: Number<1, MAX_CONNECTIONS> = (none "no limit"), Reload;
    }

    /// An entry of `tls`: a certificate and its key.
    table "site.NAME.tls" Certificate {
        /// The file with the certificate and those that lead to an authority, in PEM.
        cert: PathBuf = (required), Reload;
        /// The file with the private key, in PEM.
        key: PathBuf = (required), Reload;
    }

    /// `acme`: the authority that issues certificates (RFC 8555).
    table "front.acme" Acme {
        /// The address to which the authority sends messages for the operator.
        email: String = (none "none"), Reload;
        /// The URL of the directory of the authority.
        directory: String = "https://acme-v02.api.letsencrypt.org/directory", Reload;
        /// The file with the authority that has issued the certificate of that server, in PEM.
        ca: PathBuf = (none "those that the system trusts"), Reload;
        /// The kinds of challenges by which hosts are proven, what is preferred first.
        challenges: Vec<Challenge> = (none "both"), Reload;
        /// The account elsewhere to which the account at the authority is bound, if it asks for one.
        eab: Eab = (none "none"), Reload;
    }

    /// `eab` in `acme`: an external account (RFC 8555 section 7.3.4).
    table "front.acme.eab" Eab {
        /// The name of the external account, as the authority has told it.
        key_id: String = (required), Reload;
        /// Where its key is: "credential:NAME" or "file:PATH".
        hmac_key: String = (required), Reload;
    }

    /// An entry of `routes`: a path, conditions, and what answers.
    table "site.NAME.routes" Route with layers: Layers {
        /// The path of the requests, with all that is below it; the longest path that fits counts.
        path: String = "/", Reload;
        /// The methods of the requests.
        methods: Vec<Spanned<String>> = (none "all"), Reload;
        /// Fields that the requests must have, with their values; "*" is any value.
        headers: BTreeMap<Spanned<String>, Spanned<String>> = {}, Reload;
        /// The app that answers.
        app: String = (none "none"), Reload;
        /// The addresses outside that answer, such as "http://10.0.0.5:8080" or "fastcgi:unix:/run/php.sock".
        to: Vec<Spanned<String>> = (none "none"), Reload;
        /// Whether the app, or what is at the address, does not see the path of the route.
        strip_prefix: bool = false, Reload;
        /// What takes the place of the path of the route, for the app or what is at the address, such as "/new".
        rewrite: String = (none "nothing"), Reload;
        /// The folder of the scripts that answer, for a `to` with FastCGI.
        root: PathBuf = (none "none"), Reload;
        /// The script that answers for a folder, and for what is no file; "" is none.
        index: String = "index.php", Reload;
        /// Whether the app gets the body of a request while it arrives.
        stream: bool = false, Reload;
        /// A folder or file that answers, as in `static`.
        folder: Mapped = (none "none"), Reload;
        /// A location that answers.
        redirect: Redirected = (none "none"), Reload;
        /// A status that answers, or a table with a text besides.
        answer: Answered = (none "none"), Reload;
    }

    /// What sites and routes have alike.
    group Layers {
        /// The clients that are served, by their addresses; others get 403.
        allow: Vec<Proxy> = [], Reload;
        /// The clients that are not served, by their addresses; they get 403.
        deny: Vec<Proxy> = [], Reload;
        /// The file with the users that are served, and the hashes of their passwords; others get 401.
        basic_auth: Asked = (none "that of the site, else none"), Reload;
        /// Whom to ask whether a request may pass: an app with a path, such as "auth:/verify", or a table.
        forward_auth: Forwarded = (none "that of the site, else none"), Reload;
        /// How many requests a client may send; others get 429.
        rate_limit: Vec<Spanned<RateLimit>> = [], Reload;
        /// The largest request body; a larger one is answered with 413.
        max_body: Size = (none "that of the site or of [front]"), Reload;
        /// What changes in the heads of responses: fields that are removed, set and added.
        response_headers: Fields = {}, Reload;
        /// What changes in the heads of requests on their way to an app or an address: fields that are removed, set and added.
        request_headers: Fields = {}, Reload;
        /// Folders of which the app may have files sent with X-Accel-Redirect and X-Sendfile, by the prefixes of their paths in X-Accel-Redirect.
        sendfile: BTreeMap<Spanned<String>, Spanned<PathBuf>> = (none "those of the site, else none"), Reload;
        /// Whether responses are compressed for clients that accept it, or with which codings.
        compress: Precompressed = (none "that of the site, else false"), Reload;
        /// Whether responses of apps are kept in memory, as long as they say, and given to other clients.
        cache: bool = (none "that of the site, else false"), Reload;
        /// Files that are sent in place of the texts of preforkd itself, by the status.
        error_pages: BTreeMap<Spanned<String>, Spanned<PathBuf>> = {}, Reload;
        /// The file that answers all requests with status 503, while there is maintenance.
        maintenance: Maintained = (none "none"), Reload;
    }

    /// `basic_auth` as a table: users, and what they are told.
    table "site.NAME.basic_auth" BasicAuth {
        /// The file with the users, as htpasswd writes it.
        file: PathBuf = (required), Reload;
        /// What users are told about what they log in to.
        realm: String = "Restricted", Reload;
    }

    /// `forward_auth` as a table: who is asked, and what is taken of the answer.
    table "site.NAME.forward_auth" ForwardAuth {
        /// The app that is asked.
        app: String = (none "none"), Reload;
        /// The addresses outside that are asked, such as "http://127.0.0.1:9091".
        to: Vec<Spanned<String>> = (none "none"), Reload;
        /// The path that is asked for, perhaps with a query.
        path: String = "/", Reload;
        /// The fields of the answer that the request gets, and that no client can send.
        headers: Vec<Spanned<String>> = ["Remote-User", "Remote-Groups", "Remote-Name", "Remote-Email"], Reload;
        /// The field of the answer that names the user, for the access log and REMOTE_USER.
        user: String = "Remote-User", Reload;
    }

    /// An entry of `rate_limit`: a rate, and whom it is for.
    table "site.NAME.rate_limit" RateLimit {
        /// A number of requests and a time, such as "10/s", "100/m" or "1000/h".
        rate: PerTime = (required), Reload;
        /// How many requests more may come at once.
        burst: Number<0, 1_000_000> = 10, Reload;
        /// The field of the request that tells clients apart, such as "X-Api-Key".
        key: String = (none "their addresses"), Reload;
    }

    /// `response_headers` and `request_headers`: what changes in heads, in this order.
    table "site.NAME.response_headers" Fields {
        /// The names of fields that are removed.
        remove: Vec<Spanned<String>> = [], Reload;
        /// Fields that take the place of those with the same name.
        set: BTreeMap<Spanned<String>, Spanned<String>> = {}, Reload;
        /// Fields that are added.
        add: BTreeMap<Spanned<String>, Spanned<String>> = {}, Reload;
    }

    /// `maintenance` as a table: what answers, and for whom it does not.
    table "site.NAME.maintenance" Maintenance {
        /// The file that answers.
        page: PathBuf = (required), Reload;
        /// When clients should ask again.
        retry_after: Time = "5m", Reload;
        /// The clients that are served all the same.
        except: Vec<Proxy> = [], Reload;
    }

    /// `redirect` as a table: a location, and the status.
    table "site.NAME.redirect" Redirect {
        /// The location, in which {host}, {path}, {rest} and {query} stand for what was asked for.
        to: String = (required), Reload;
        /// The status: 301, 302, 303, 307 or 308.
        status: Number<301, 308> = (none "308 for \"https\", else 302"), Reload;
    }

    /// `answer` as a table: a status and a text.
    table "site.NAME.routes.answer" Answer {
        /// The status.
        status: Number<200, 599> = 200, Reload;
        /// The text.
        text: String = "", Reload;
        /// The type of the text.
        content_type: String = "text/plain; charset=utf-8", Reload;
    }

    /// `[front]`: the workers that serve all sites.
    table "front" Front {
        /// The number of workers; "auto" is the number of CPUs that the master may use.
        workers: FixedWorkers = "auto", Reload;
        /// The user that the workers run as.
        user: UserName = (none "the user of the master"), Reload;
        /// The primary group of the workers.
        group: GroupName = (none "the primary group of user, else the group of the master"), Reload;
        /// How many connections may wait in each listener until a worker accepts them.
        backlog: Number<0, NO_LIMIT> = 2048, Reload;
        /// The file to which each worker writes a line for each response; "-" for standard output, or a syslog server.
        access_log: AccessLog = (none "none"), Reload;
        /// The form of a line of the access log: "combined", "json", or a text with names of fields in braces.
        access_format: String = "combined", Reload;
        /// Give each request a name, which the response has in X-Request-ID.
        request_id: bool = false, Reload;
        /// The proxies that may say which client they ask for, and with which URL.
        trusted_proxies: Vec<Proxy> = [], Reload;
        /// The fields about the client that these proxies set; the others are removed, as clients may have written them.
        forwarded_fields: Vec<Spanned<String>> = (none "all"), Reload;
        /// Each connection begins with a PROXY header, which names the client; only trusted proxies may connect.
        proxy_protocol: bool = false, Reload;
        /// Clients may speak HTTP/2.
        http2: bool = true, Reload;
        /// The memory of each worker for responses of routes with `cache`.
        cache_size: Size = "64MiB", Reload;
        /// Who issues the certificates of sites with `tls = "auto"`, and how.
        acme: Acme = {}, Reload;
        /// The longest request line and header section together; a longer one is answered with 414 or 431.
        max_head: Size = "32KiB", Reload;
        /// The most header lines of a request; more are answered with 431.
        max_headers: Number<1, 256> = 100, Reload;
        /// The largest request body; a larger one is answered with 413.
        max_body: Size = "64MiB", Reload;
        /// A request body larger than this goes to a temporary file.
        body_in_memory: Size = "256KiB", Reload;
        /// The part of a response that the client has not received stays in memory up to this size; more goes to a temporary file.
        response_in_memory: Size = "256KiB", Reload;
        /// The largest temporary file for one response.
        response_in_file: Size = "64MiB", Reload;
        /// The most that one worker may hold of request bodies and responses together, in memory and in temporary files.
        max_buffered: Size = "1GiB", Reload;
        /// How long the head of a request may take to arrive.
        header_timeout: Time = "10s", Reload;
        /// The longest pause between two pieces of a request body.
        body_timeout: Time = "30s", Reload;
        /// How long sending a response may make no progress before the connection is closed.
        write_timeout: Time = "30s", Reload;
        /// How long an idle connection is kept open for its next request.
        keepalive_timeout: Time = "30s", Reload;
        /// How long a connection may be silent, in both directions, that speaks another protocol after an upgrade, such as WebSocket; and a call of gRPC.
        upgrade_timeout: Time = "1h", Reload;
        /// The most connections that one worker has open at a time.
        max_connections: Number<1, MAX_CONNECTIONS> = 10000, Reload;
        /// The most connections that a client has open in all workers together.
        max_connections_per_client: Number<1, MAX_CONNECTIONS> = (none "no limit"), Reload;
        /// A worker that is not ready after this time has failed.
        start_timeout: Time = "60s", Reload;
        /// How long a worker that is told to end may take to finish what it serves, before it is killed.
        graceful_timeout: Time = "30s", Reload;
    }
}

impl Redirect {
    /// A location with the default status.
    pub(super) fn to(location: String) -> Self {
        Self {
            to: Value::without_place(location),
            status: None,
        }
    }
}

impl BasicAuth {
    /// A file with the default text.
    pub(super) fn of(file: PathBuf) -> Self {
        Self {
            file: Value::without_place(file),
            realm: Value::default("\"Restricted\""),
        }
    }
}

impl ForwardAuth {
    /// An app and a path, with the default fields.
    pub(super) fn of(app: &str, path: &str) -> Self {
        Self {
            app: Some(Value::without_place(app.to_owned())),
            path: Value::without_place(path.to_owned()),
            ..super::table::default("{}")
        }
    }
}

impl Answer {
    /// A status without a text.
    pub(super) fn with(status: Number<200, 599>) -> Self {
        Self {
            status: Value::without_place(status),
            text: Value::default("\"\""),
            content_type: Value::default("\"text/plain; charset=utf-8\""),
        }
    }
}

/// How long a response may take if nothing else is configured, and how long after `timeout` a worker that hangs was surely killed.
const RESPONSE: Duration = Duration::from_secs(60);
const KILLED: Duration = Duration::from_secs(5);

impl App {
    /// `upstream.response_timeout`, or its default: where a worker that takes too long is killed, the front waits for that.
    pub fn response_timeout(&self) -> Duration {
        let timeout = self.wsgi.as_ref().map(|_| self.timeout.0);
        let longest = timeout.map(|timeout| timeout.saturating_add(KILLED));
        let written = self.upstream.response_timeout.as_ref();
        written.map_or(longest.unwrap_or(RESPONSE).max(RESPONSE), |time| time.0)
    }

    /// The same app with these files only.
    pub fn with_files(&self, prefix: String, files: Spanned<Mapped>) -> Self {
        Self {
            static_files: Value::without_place(StaticFiles {
                mappings: BTreeMap::from([(prefix, files)]),
                by_django: false,
            }),
            ..self.clone()
        }
    }
}

impl App {
    /// One of which nothing is written.
    pub fn of_nobody() -> Self {
        super::table::default("{}")
    }
}

impl Front {
    /// The keys that an app has too, as those of an app that listens where this site does, and has its files.
    pub fn as_app(&self, site: &Site) -> App {
        App {
            listen: site.listen.clone(),
            static_files: site.static_files.clone(),
            workers: self.workers.clone().map(|workers| workers.0),
            user: self.user.clone(),
            group: self.group.clone(),
            backlog: self.backlog.clone(),
            access_log: self.access_log.clone(),
            access_format: self.access_format.clone(),
            request_id: self.request_id.clone(),
            trusted_proxies: self.trusted_proxies.clone(),
            forwarded_fields: self.forwarded_fields.clone(),
            proxy_protocol: self.proxy_protocol.clone(),
            max_head: self.max_head.clone(),
            max_headers: self.max_headers.clone(),
            max_body: self.max_body.clone(),
            body_in_memory: self.body_in_memory.clone(),
            response_in_memory: self.response_in_memory.clone(),
            response_in_file: self.response_in_file.clone(),
            max_buffered: self.max_buffered.clone(),
            header_timeout: self.header_timeout.clone(),
            body_timeout: self.body_timeout.clone(),
            write_timeout: self.write_timeout.clone(),
            keepalive_timeout: self.keepalive_timeout.clone(),
            max_connections: self.max_connections.clone(),
            start_timeout: self.start_timeout.clone(),
            graceful_timeout: self.graceful_timeout.clone(),
            ..super::table::default("{}")
        }
    }
}

impl Listen {
    /// An address with default settings.
    pub fn on(address: Address) -> Self {
        Self {
            address: Value::without_place(address),
            name: None,
            mode: None,
            owner: None,
            group: None,
        }
    }
}

impl Mapping {
    /// A folder or file with default settings.
    pub(super) fn of(folder: Value<PathBuf>) -> Self {
        Self {
            folder,
            max_age: None,
            immutable: Value::default("false"),
            headers: Value::default("{}"),
            index: Value::default("\"index.html\""),
            fallthrough: None,
            precompressed: Value::default("false"),
        }
    }
}
