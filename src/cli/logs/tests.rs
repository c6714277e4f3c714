use super::*;
use crate::cli::{
    fake::{Fake, Reply},
    output::{ColorChoice, Format, Stream, testing},
};

const RUN: &str = "01ka0000000000000000000001";

fn args() -> Args {
    Args { run: format!("run/{RUN}"), task: None, step: None, follow: false, timestamps: false, tail: None }
}

const BYTES: &[u8] = b"plain\n\x1b[31mred\x1b[0m\n\xff\x00\r\x1b]52;c;aGk=\x07 half a line";

#[test]
fn bytes_pass_as_they_are() {
    let fake = Fake::start(|_, _| Reply::Stream(vec![BYTES[..9].to_vec(), BYTES[9..].to_vec()], true));
    let (mut ui, out, err) = testing::ui(Format::Table);
    run(&args(), &fake.client(), &mut ui).unwrap();
    assert_eq!(out.bytes(), BYTES);
    assert_eq!(err.text(), "");
    assert_eq!(fake.requests()[0].target, format!("/api/v1/runs/{RUN}/logs?format=text"));
}

#[test]
fn a_terminal_gets_colours_and_nothing_else_that_acts() {
    let fake = Fake::start(|_, _| Reply::Stream(vec![BYTES.to_vec()], true));
    let (mut ui, out, _) = testing::ui(Format::Table);
    ui.out = Stream::new(out.clone(), true, ColorChoice::Never);
    run(&args(), &fake.client(), &mut ui).unwrap();
    assert_eq!(out.text(), "plain\n\x1b[31mred\x1b[0m\n\\xff\\x00\\r\\x1b]52;c;aGk=\\x07 half a line");
}

#[test]
fn follow_outlives_a_restart_of_the_controller() {
    let fake = Fake::start(|_, before| match before {
        0 => Reply::Stream(vec![b"a\nb".to_vec()], false),
        _ => Reply::Stream(vec![b"a\nb\nc\n".to_vec()], true),
    });
    let (mut ui, out, _) = testing::ui(Format::Table);
    let args = Args { follow: true, task: Some("t[os=linux]".into()), ..args() };
    run(&args, &fake.client(), &mut ui).unwrap();
    assert_eq!(out.text(), "a\nb\nc\n");
    assert!(fake.requests()[0].target.ends_with("?format=text&task=t%5Bos%3Dlinux%5D&follow=true"));
}

#[test]
fn a_log_that_breaks_off_is_told() {
    let fake = Fake::start(|_, _| Reply::Stream(vec![b"a\n".to_vec()], false));
    let (mut ui, out, _) = testing::ui(Format::Table);
    let args = Args { follow: true, tail: Some(5), ..args() };
    let error = run(&args, &fake.client(), &mut ui).unwrap_err();
    assert_eq!((error.status(), out.text().as_str()), (3, "a\n"));
}

#[test]
fn an_unknown_run_has_its_exit_status() {
    let fake = Fake::start(|_, _| Reply::Json(404, serde_json::json!({"detail": "there is no run named x"})));
    let (mut ui, _, _) = testing::ui(Format::Table);
    for follow in [false, true] {
        let error = run(&Args { follow, ..args() }, &fake.client(), &mut ui).unwrap_err();
        assert_eq!((error.status(), error.to_string().as_str()), (4, "there is no run named x"));
    }
}

#[test]
fn a_pipeline_stands_for_its_newest_run() {
    let fake = Fake::start(|request, before| match (request.path(), before) {
        ("/api/v1/runs", 0) => Reply::Json(200, serde_json::json!({"items": [{"metadata": {"name": RUN}}]})),
        ("/api/v1/runs", _) => Reply::Json(200, serde_json::json!({"items": []})),
        _ => Reply::Stream(vec![b"log".to_vec()], true),
    });
    let (mut ui, out, _) = testing::ui(Format::Table);
    let args = Args { run: "site/build".into(), ..args() };
    run(&args, &fake.client(), &mut ui).unwrap();
    assert_eq!(out.text(), "log");
    let targets: Vec<_> = fake.requests().into_iter().map(|request| request.target).collect();
    let list = "/api/v1/runs?workflow=site&pipeline=build&limit=1".to_owned();
    assert_eq!(targets, [list, format!("/api/v1/runs/{RUN}/logs?format=text")]);
    assert_eq!(run(&args, &fake.client(), &mut ui).unwrap_err().status(), 4, "it never ran");
}
