//! What `/metrics` says, and that its page says the same.

use std::collections::BTreeSet;

use super::*;

fn document(name: &str) -> String {
    std::fs::read_to_string(format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[tokio::test]
async fn metrics_are_openmetrics_and_need_a_viewer() {
    let world = World::new();
    assert_eq!(world.ask("GET", "/metrics", &[], "").await.status(), 401);
    let viewer = world.token(&json!({"role": "viewer"})).await;
    let header = format!("Bearer {viewer}");
    world.start(&[], &json!({"workflow": "w", "pipeline": "slow"})).await;
    let answer = world.ask("GET", "/metrics", &[("authorization", &header)], "").await;
    assert_eq!(answer.headers()["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let page = text(answer).await;
    assert!(page.ends_with("# EOF\n"), "{page}");
    let mut family = "";
    for line in page.lines().filter(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# TYPE ").or_else(|| line.strip_prefix("# HELP ")) {
            family = rest.split(' ').next().unwrap();
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(series.starts_with(family), "{line} below {family}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    let has = |sample: &str| assert!(page.lines().any(|line| line == sample), "{sample}\n{page}");
    has("xene_http_requests_total{method=\"POST\",code=\"201\"} 2");
    has("xene_http_requests_total{method=\"GET\",code=\"401\"} 1");
    has("xene_runs{phase=\"Running\"} 0");
    has(&format!("xene_store_commits_total {}", world.store.revision().unwrap()));
    let number = |sample: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse::<f64>().ok());
        line.unwrap_or_else(|| panic!("{sample}\n{page}"))
    };
    assert!(number("xene_store_commit_seconds_count") >= 2.0 && number("xene_store_commit_seconds_sum") > 0.0);
    has(&format!("xene_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")));
    assert!(world.store.bytes() > 4096);
}

#[test]
fn the_page_of_metrics_names_all_and_no_other() {
    let page = document("reference/metrics.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let documented: BTreeSet<(String, String, String)> = rows
        .filter_map(|(name, rest)| match rest.trim_end_matches(" |").split(" | ").collect::<Vec<_>>()[..] {
            [kind, _, help] => Some((name.to_owned(), kind.to_owned(), help.to_owned())),
            _ => None,
        })
        .collect();
    let exposed = |(name, kind, help): &(&str, &str, &str)| {
        let suffix = match *kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        (format!("{name}{suffix}"), (*kind).to_owned(), (*help).to_owned())
    };
    let exposed: BTreeSet<_> = crate::http::metrics::FAMILIES.iter().map(exposed).collect();
    assert_eq!(documented, exposed);
}

#[test]
fn the_dashboard_shows_what_there_is() {
    let dashboard: Value = serde_json::from_str(&document("grafana-dashboard.json")).unwrap();
    let names: Vec<&str> = crate::http::metrics::FAMILIES.iter().map(|(name, ..)| *name).collect();
    let mut shown = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let expr = target["expr"].as_str().unwrap();
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            for word in
                expr.split(|c| !is_word(c)).filter(|word| word.starts_with("xene_") || word.starts_with("process_"))
            {
                assert!(names.iter().any(|name| word.starts_with(name)), "{word} in {expr}");
                shown += 1;
            }
        }
    }
    assert!(shown > 10);
}
