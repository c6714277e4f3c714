//! What the types write as YAML or JSON, they read back as it was, whatever the texts in it hold.

use proptest::{collection::vec, option, prelude::*, sample::select};
use xene_schemas::{
    connector::{Approval, Connector, Names, On, OnTimeout},
    duration::Duration,
    env::{EnvValue, Scalar},
    executor::{Executor, Pull},
    map::UniqueMap,
    meta::{Name, ObjectMeta},
    param::{Param, ParamType},
    pipeline::{
        AgentSelector, Autonomy, Concurrency, ConcurrencyPolicy, History, KeepWorkspace, OnAgentLost, OnAmbiguous,
        PipelineSpec,
    },
    step::{Run, Shell, Step},
    task::{Artifacts, Retry, Task},
    trigger::{CatchUp, Cron, Trigger, Webhook, WebhookAuth, WebhookAuthType},
    workflow::{ApiVersion, Workflow, WorkflowKind, WorkflowSpec},
};

fn name() -> impl Strategy<Value = Name> {
    // Also what YAML could take for something else than text.
    let odd = select(vec!["null", "true", "yes", "1", "1e3", "0x10", "1.5", "007", "on", "NaN"]);
    prop_oneof![4 => "[A-Za-z0-9]([-A-Za-z0-9_.]{0,6}[A-Za-z0-9])?", 1 => odd.prop_map(str::to_owned)]
        .prop_map(|text| text.parse().unwrap_or_else(|error| panic!("{error}")))
}

fn text() -> impl Strategy<Value = String> {
    let odd = select(vec![
        "",
        " ",
        "~",
        "null",
        "true",
        "no",
        "1",
        "-1.5",
        "1e9",
        "0o7",
        ".inf",
        "- a",
        "a: b",
        "# a",
        "a #b",
        "'",
        "\"",
        "*a",
        "&a",
        "!a",
        "%a",
        "@a",
        "`a",
        "|",
        ">",
        "{",
        "[",
        "a\nb",
        "a\n",
        "\na",
        "a\n\n",
        " a\n b",
        "\t",
        "a\tb",
        "\r",
        "a\r\nb",
        "\u{0}",
        "\u{7f}",
        "\u{85}",
        "\u{2028}",
        "\u{feff}",
        "é",
        "\u{1f600}",
        "---",
        "...",
        "--- a",
        "<<",
        "=",
        "?",
        "? a",
        "2026-11-26",
        "12:30:45",
    ]);
    prop_oneof![2 => odd.prop_map(str::to_owned), 1 => "[ -~]{0,12}", 1 => any::<String>()]
}

fn map<K: std::hash::Hash + Eq + std::fmt::Debug, V: std::fmt::Debug>(
    keys: impl Strategy<Value = K>,
    values: impl Strategy<Value = V>,
) -> impl Strategy<Value = UniqueMap<K, V>> {
    vec((keys, values), 0..3).prop_map(|entries| entries.into_iter().collect())
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![0..10_000u64, any::<u64>()].prop_map(Duration::from_millis)
}

fn number() -> impl Strategy<Value = f64> {
    // With few digits: JSON's reader is exact to within the last bit only.
    prop_oneof![
        (-9i32..9).prop_map(f64::from),
        any::<i32>().prop_map(|n| f64::from(n) / 16.0),
        Just(1e300),
        Just(-1e-9)
    ]
}

fn scalar() -> impl Strategy<Value = Scalar> {
    prop_oneof![
        text().prop_map(Scalar::String),
        any::<i64>().prop_map(Scalar::Integer),
        number().prop_map(Scalar::Number),
        any::<bool>().prop_map(Scalar::Boolean),
    ]
}

fn env() -> impl Strategy<Value = UniqueMap<String, EnvValue>> {
    let output = (name(), "[a-z_][a-z0-9_-]{0,4}", option::of(text()));
    let value = prop_oneof![
        scalar().prop_map(EnvValue::Literal),
        text().prop_map(EnvValue::Param),
        output.prop_map(|(task, name, default)| EnvValue::Output { task: task.to_string(), name, default }),
        text().prop_map(EnvValue::Secret),
        text().prop_map(EnvValue::Expr),
    ];
    map(text(), value)
}

fn labels() -> impl Strategy<Value = UniqueMap<String, String>> {
    map(text(), text())
}

fn names() -> impl Strategy<Value = Names> {
    vec(name(), 0..3).prop_map(Names)
}

fn params() -> impl Strategy<Value = UniqueMap<String, Param>> {
    let kind =
        select(vec![ParamType::String, ParamType::Integer, ParamType::Number, ParamType::Boolean, ParamType::Choice]);
    let fields = (kind, option::of(scalar()), any::<bool>(), vec(text(), 0..3), option::of(text()), option::of(text()));
    let param = fields.prop_map(|(kind, default, required, choices, pattern, description)| Param {
        kind,
        default,
        required,
        choices,
        pattern,
        description,
    });
    map(text(), param)
}

fn trigger() -> impl Strategy<Value = Trigger> {
    let catch_up = select(vec![CatchUp::Skip, CatchUp::Latest, CatchUp::All]);
    let params = map(text(), scalar());
    let cron = (text(), option::of(text()), catch_up, duration(), duration(), params, any::<bool>()).prop_map(
        |(schedule, time_zone, catch_up, starting_deadline, jitter, params, suspend)| {
            Trigger::Cron(Cron { schedule, time_zone, catch_up, starting_deadline, jitter, params, suspend })
        },
    );
    let kind = select(vec![
        WebhookAuthType::Token,
        WebhookAuthType::HmacSha256,
        WebhookAuthType::Github,
        WebhookAuthType::Gitlab,
    ]);
    let auth = option::of((kind, text()).prop_map(|(kind, secret)| WebhookAuth { kind, secret }));
    let webhook = (auth, option::of(text()), labels(), any::<bool>())
        .prop_map(|(auth, when, params, suspend)| Trigger::Webhook(Webhook { auth, when, params, suspend }));
    prop_oneof![cron, webhook]
}

fn retry() -> impl Strategy<Value = Retry> {
    let (delay, longest) = (option::of(duration()), option::of(duration()));
    (any::<u32>(), delay, option::of(number()), longest, vec(any::<i32>(), 0..3)).prop_map(
        |(attempts, delay, backoff, max_delay, on_exit_codes)| Retry {
            attempts,
            delay,
            backoff,
            max_delay,
            on_exit_codes,
        },
    )
}

fn executor() -> impl Strategy<Value = Executor> {
    let pull = option::of(select(vec![Pull::Always, Pull::IfNotPresent, Pull::Never]));
    let texts = (text(), option::of(text()), option::of(text()), vec(text(), 0..3), option::of(text()));
    let container = (texts, pull, option::of(number()));
    prop_oneof![
        Just(Executor::Shell {}),
        container.prop_map(|((image, user, network, mounts, memory), pull, cpus)| Executor::Container {
            image,
            pull,
            user,
            network,
            mounts,
            cpus,
            memory
        }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let argv = || vec(text(), 0..3);
    let run = prop_oneof![text().prop_map(Run::Script), argv().prop_map(Run::Argv)];
    let shell = option::of(prop_oneof![text().prop_map(Shell::Named), argv().prop_map(Shell::Argv)]);
    let limits = (option::of(duration()), option::of(retry()), any::<bool>());
    (option::of(name()), run, shell, env(), option::of(text()), limits, option::of(text())).prop_map(
        |(name, run, shell, env, working_dir, (timeout, retry, allow_failure), when)| Step {
            name,
            run,
            shell,
            env,
            working_dir,
            timeout,
            retry,
            allow_failure,
            when,
        },
    )
}

fn task() -> impl Strategy<Value = Task> {
    let head = (option::of(text()), names(), option::of(name()), option::of(text()), option::of(text()));
    let limits = (option::of(duration()), option::of(duration()), option::of(retry()), any::<bool>());
    let artifacts =
        option::of((vec(text(), 0..3), vec(name(), 0..3)).prop_map(|(save, from)| Artifacts { save, from }));
    let body = (env(), option::of(executor()), vec(step(), 0..3), option::of(vec(text(), 0..3)), artifacts);
    (head, limits, body).prop_map(
        |(
            (description, dependencies, context, working_dir, when),
            (timeout, grace_period, retry, allow_failure),
            (env, executor, steps, outputs, artifacts),
        )| Task {
            description,
            dependencies,
            context,
            working_dir,
            when,
            matrix: None,
            timeout,
            grace_period,
            retry,
            allow_failure,
            env,
            executor,
            steps,
            outputs,
            artifacts,
        },
    )
}

fn connector() -> impl Strategy<Value = Connector> {
    let on_timeout = option::of(select(vec![OnTimeout::Reject, OnTimeout::Approve]));
    let approval = (option::of(text()), option::of(duration()), on_timeout)
        .prop_map(|(message, timeout, on_timeout)| Approval { message, timeout, on_timeout });
    let on = select(vec![On::Success, On::Failure, On::Always]);
    (names(), names(), on, option::of(text()), labels(), option::of(approval))
        .prop_map(|(from, to, on, when, outputs, approval)| Connector { from, to, on, when, outputs, approval })
}

fn pipeline() -> impl Strategy<Value = PipelineSpec> {
    let head = (option::of(text()), labels(), names(), names(), labels());
    let autonomy = option::of(prop_oneof![Just(Autonomy::Forever), duration().prop_map(Autonomy::For)]);
    let policy = select(vec![ConcurrencyPolicy::Queue, ConcurrencyPolicy::Skip, ConcurrencyPolicy::Replace]);
    let concurrency =
        (any::<u32>(), policy, option::of(name())).prop_map(|(max, policy, group)| Concurrency { max, policy, group });
    let on_agent_lost = option::of(select(vec![OnAgentLost::Error, OnAgentLost::Retry]));
    let on_ambiguous = option::of(select(vec![OnAmbiguous::Skip, OnAmbiguous::Run]));
    let owner = (autonomy, any::<bool>(), option::of(executor()), concurrency, on_agent_lost, on_ambiguous);
    let limits = (option::of(duration()), option::of(duration()), option::of(duration()), option::of(duration()));
    let history =
        option::of((any::<u32>(), duration(), any::<u32>()).prop_map(|(runs, max_age, keep_successes)| History {
            runs,
            max_age,
            keep_successes,
        }));
    let keep = option::of(select(vec![KeepWorkspace::Never, KeepWorkspace::OnError, KeepWorkspace::Always]));
    let inside = (any::<bool>(), env(), params(), any::<bool>(), history, keep);
    let work = (map(name(), task()), vec(connector(), 0..3), map(name(), task()));
    (head, owner, limits, inside, work).prop_map(
        |(
            (description, labels, triggers, after, agents),
            (autonomy, exclusive, executor, concurrency, on_agent_lost, on_ambiguous),
            (timeout, queue_timeout, finally_timeout, grace_period),
            (fail_fast, env, params, suspend, history, keep_workspace),
            (tasks, connectors, finally),
        )| PipelineSpec {
            description,
            labels,
            triggers,
            after,
            agents: AgentSelector { labels: agents },
            autonomy,
            exclusive,
            executor,
            concurrency,
            on_agent_lost,
            on_ambiguous,
            timeout,
            queue_timeout,
            finally_timeout,
            grace_period,
            fail_fast,
            env,
            params,
            suspend,
            history,
            keep_workspace,
            tasks,
            connectors,
            finally,
        },
    )
}

fn workflow() -> impl Strategy<Value = Workflow> {
    let metadata = (name(), option::of(text()), labels(), labels())
        .prop_map(|(name, description, labels, annotations)| ObjectMeta { name, description, labels, annotations });
    let triggers = map(name(), trigger());
    let spec = (any::<bool>(), env(), params(), vec(text(), 0..3), triggers, map(name(), pipeline())).prop_map(
        |(suspend, env, params, files, triggers, pipelines)| WorkflowSpec {
            suspend,
            env,
            params,
            files,
            triggers,
            pipelines,
        },
    );
    (metadata, spec).prop_map(|(metadata, spec)| Workflow {
        api_version: ApiVersion::V1,
        kind: WorkflowKind::Workflow,
        metadata,
        spec,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_as_yaml_is_read_as_it_was(workflow in workflow()) {
        let yaml = serde_yaml::to_string(&workflow).unwrap_or_else(|error| panic!("{error}"));
        let read: Workflow = serde_yaml::from_str(&yaml).map_err(|error| TestCaseError::fail(format!("{error}\n{yaml}")))?;
        prop_assert_eq!(&read, &workflow, "{}", yaml);
        prop_assert_eq!(serde_yaml::to_string(&read).unwrap_or_default(), yaml);
    }

    #[test]
    fn what_is_written_as_json_is_read_as_it_was(workflow in workflow()) {
        let json = serde_json::to_string(&workflow).unwrap_or_else(|error| panic!("{error}"));
        let read: Workflow = serde_json::from_str(&json).map_err(|error| TestCaseError::fail(format!("{error}\n{json}")))?;
        prop_assert_eq!(&read, &workflow, "{}", json);
    }
}
