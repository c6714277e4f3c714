//! Lists that are longer than a page: what is not shown has a link that leads to it, and nothing is lost on the way.

use std::collections::BTreeSet;

use xene_schemas::meta::SpecHash;

use super::*;
use crate::decide::rows::{AgentRow, NotifierRow};

fn event(n: u32, reason: &str, regarding: &str) -> Change {
    Change::AddEvent(NewEvent {
        at: Timestamp::from_second(i64::from(n)).unwrap(),
        kind: EventType::Normal,
        reason: reason.to_owned(),
        message: format!("by {n:040} at w.yaml:1"),
        regarding: regarding.to_owned(),
    })
}

pub(super) fn agent(name: &str) -> AgentRow {
    AgentRow {
        name: name.parse().unwrap(),
        labels: xene_schemas::meta::Labels::default(),
        labels_fixed: false,
        slots: 4,
        version: "1".to_owned(),
        draining: false,
        revoked: false,
        last_seen: None,
        certificates: Vec::new(),
        authority: String::new(),
        enrolled_at: Timestamp::from_second(1).unwrap(),
        newest_token: 0,
        tokens: Vec::new(),
        lost: false,
        twin: None,
        joined_by: None,
    }
}

fn notifier(name: &str) -> NotifierRow {
    NotifierRow {
        metadata: serde_json::from_value(json!({"name": name})).unwrap(),
        spec: serde_json::from_value(json!({"on": ["Error"], "slack": {"credential": "chat"}})).unwrap(),
        revision: Revision("r1".to_owned()),
        path: "n.yaml".to_owned(),
        line: 1,
        generation: Generation(1),
        hash: SpecHash([2; 32]),
        // So that the overview has something to say of each.
        valid: false,
    }
}

/// Runs of `w/build` that this agent has.
fn put_runs(world: &World, numbers: std::ops::Range<u128>, phase: RunPhase, agent: &str) {
    let key: PipelineKey = "w/build".parse().unwrap();
    let rows = numbers.map(|n| {
        let mut run = row(&key, run_name(n), None, phase).run;
        run.status.agent = Some(agent.parse().unwrap());
        Change::PutRun(Box::new(RunRow::new(run, true)))
    });
    commit(&world.store, rows.collect());
}

/// What follows `before` up to a quote, at each place of a page.
fn all<'p>(page: &'p str, before: &'p str) -> impl Iterator<Item = &'p str> {
    page.split(before).skip(1).filter_map(|rest| rest.split('"').next())
}

/// Where a page's link to the rest of its list leads.
fn next_of(page: &str, path: &str) -> Option<String> {
    let (_, rest) = page.split_once("<a rel=\"next\" href=\"")?;
    let to = rest.split_once('"').unwrap().0.replace("&amp;", "&");
    Some(if to.starts_with('?') { format!("{}{to}", path.split('?').next().unwrap()) } else { to })
}

/// Goes from page to page until there is no other; gives what each of them names, and how many there were.
async fn walk(world: &World, cookie: &str, path: &str, item: &str) -> (Vec<String>, usize) {
    let (mut found, mut pages, mut next) = (Vec::new(), 0, Some(path.to_owned()));
    while let Some(path) = next.take() {
        let (status, page) = world.page(&path, cookie).await;
        assert_eq!(status, 200, "{path}: {page}");
        found.extend(all(&page, item).map(str::to_owned));
        pages += 1;
        next = next_of(&page, &path);
    }
    (found, pages)
}

#[tokio::test]
async fn every_page_of_a_long_list_is_reached() {
    let names = |kind: &str, count: u32| (0..count).map(|n| format!("{kind}-{n:03}")).collect::<Vec<_>>();
    let (agents, notifiers) = (names("agent", 230), names("notifier", 120));
    let loaded = Loaded {
        agents: agents.iter().map(|name| agent(name)).collect(),
        notifiers: notifiers.iter().map(|name| notifier(name)).collect(),
        ..Loaded::default()
    };
    let world = World::holding(loaded, |_| {});
    for n in 0..110 {
        seed(&world.store, &format!("flow-{n:03}"));
    }
    put_runs(&world, 0..70, RunPhase::Success, "agent-000");
    put_runs(&world, 70..190, RunPhase::Error, "agent-001");
    commit(&world.store, (0..250).map(|n| event(n, "Said", &format!("run/{n}"))).collect());
    let cookie = world.signed_in().await;
    for (path, item, count, pages) in [
        ("/runs", "<td><a class=\"mono\" href=\"/runs/", 190, 10),
        // The filter is kept from page to page.
        ("/runs?phase=Error", "<td><a class=\"mono\" href=\"/runs/", 120, 6),
        ("/runs?agent=agent-000", "<td><a class=\"mono\" href=\"/runs/", 70, 4),
        ("/workflows", "<th scope=\"row\"><a href=\"/workflows/", 111, 3),
        ("/workflows?labels=team%3Da", "<th scope=\"row\"><a href=\"/workflows/", 111, 3),
        ("/agents", "<th scope=\"row\"><a href=\"/agents/", 230, 3),
        ("/notifiers", "<tr id=\"notifier-", 120, 3),
        ("/events", "aria-label=\"only these: events about run/", 250, 13),
    ] {
        let (found, seen) = walk(&world, &cookie, path, item).await;
        let distinct: BTreeSet<_> = found.iter().collect();
        assert_eq!((found.len(), distinct.len(), seen), (count, count, pages), "{path}: {found:?}");
    }
}

#[tokio::test]
async fn a_long_part_of_a_page_leads_to_the_rest_of_it() {
    let loaded = Loaded {
        agents: (0..30).map(|n| agent(&format!("agent-{n:03}"))).collect(),
        notifiers: (0..25).map(|n| notifier(&format!("notifier-{n:03}"))).collect(),
        ..Loaded::default()
    };
    let world = World::holding(loaded, |_| {});
    let pipelines: serde_json::Map<String, Value> =
        (0..120).map(|n| (format!("p-{n:03}"), json!({"tasks": {"t": {"steps": ["true"]}}}))).collect();
    seed_spec(&world.store, "wide", json!({"pipelines": pipelines}));
    put_runs(&world, 0..60, RunPhase::Error, "agent-001");
    put_runs(&world, 60..130, RunPhase::Running, "agent-001");
    commit(&world.store, (0..200).map(|n| event(n, "WorkflowChanged", "workflow/w")).collect());
    let cookie = world.signed_in().await;

    let (found, pages) = walk(&world, &cookie, "/workflows/wide", "<h2 id=\"pipeline-").await;
    assert_eq!((found.iter().collect::<BTreeSet<_>>().len(), found.len(), pages), (120, 120, 3), "{found:?}");
    let (_, workflows) = world.page("/workflows", &cookie).await;
    assert!(workflows.contains("<a href=\"/workflows/wide\">More pipelines"), "{workflows}");
    let runs = "<td><a class=\"mono\" href=\"/runs/";
    // Its own page shows the last of them, and leads to all others.
    let (found, _) = walk(&world, &cookie, "/workflows/w", runs).await;
    assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 130);

    let (_, agent) = world.page("/agents/agent-001", &cookie).await;
    assert_eq!(all(&agent, runs).count(), 20);
    let (found, _) = walk(&world, &cookie, &next_of(&agent, "").unwrap(), runs).await;
    assert_eq!(found.len(), 70, "all that run there");

    let changes = |page: &str| page.matches("<p class=\"quiet\">Changed").count();
    let (_, page) = world.page("/workflows/w/history", &cookie).await;
    let further = next_of(&page, "").unwrap();
    let (_, more) = world.page(&further, &cookie).await;
    let (_, whole) = world.page(&next_of(&more, "").unwrap(), &cookie).await;
    assert_eq!([&page, &more, &whole].map(|page| changes(page)), [30, 120, 200], "{page}");
    assert_eq!(next_of(&whole, ""), None);

    let (_, overview) = world.page("/", &cookie).await;
    for told in [
        "<a href=\"/agents\">20 more agents are disconnected</a>",
        "<a href=\"/notifiers\">15 more notifiers have a problem</a>",
        "more pipelines are not scheduled</a>",
        "<a rel=\"next\" href=\"/runs?active=true\">All that run</a>",
        "<a rel=\"next\" href=\"/runs?phase=Error\">All that failed</a>",
        "<a rel=\"next\" href=\"/runs\">All runs</a>",
    ] {
        assert!(overview.contains(told), "{told}: {overview}");
    }
}
