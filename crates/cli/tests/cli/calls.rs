//! `call`: Candid in, Candid out; a reject or a trap on standard error.

use crate::support::{Data, Run, canister};

#[test]
fn a_counter_counts_and_keeps_counting() {
    let data = Data::with(&["counter"]);
    data.call(&["counter", "get"])
        .exits(0)
        .prints("(0 : nat)\n");
    data.call(&["counter", "inc"])
        .exits(0)
        .prints("(1 : nat)\n");
    data.call(&["counter", "add", "(41)"])
        .exits(0)
        .prints("(42 : nat)\n");
    data.call(&["counter", "get"])
        .exits(0)
        .prints("(42 : nat)\n");
    data.call(&["counter", "set", "(7 : nat)"])
        .exits(0)
        .prints("()\n");
    data.call(&["counter", "get", "--query"])
        .exits(0)
        .prints("(7 : nat)\n");
}

#[test]
fn a_query_is_called_as_one_and_what_it_writes_is_put_back() {
    let data = Data::with(&["counter"]);
    let before = data.kept();
    data.call(&["counter", "incInQuery"])
        .exits(0)
        .prints("(1 : nat)\n");
    data.call(&["counter", "incInQuery"])
        .exits(0)
        .prints("(1 : nat)\n");
    data.call(&["counter", "get"])
        .exits(0)
        .prints("(0 : nat)\n");
    assert_eq!(data.kept(), before);
    data.call(&["counter", "inc", "--query"])
        .fails(2, &["no query method `inc`", "get"]);
}

#[test]
fn replies_can_be_had_as_hex_and_raw() {
    let data = Data::with(&["counter"]);
    data.call(&["counter", "get", "--output", "hex"])
        .exits(0)
        .prints("4449444c00017d00\n");
    data.call(&["counter", "get", "--output", "raw"])
        .exits(0)
        .prints("DIDL\0\u{1}}\0");
}

#[test]
fn arguments_can_be_given_as_hex_and_in_a_file() {
    let data = Data::with(&["counter"]);
    data.call(&["counter", "add", "--arg-hex", "4449444c00017d05"])
        .exits(0)
        .prints("(5 : nat)\n");
    let file = data.directory.path().join("argument");
    std::fs::write(&file, b"DIDL\0\x01\x7d\x03").unwrap();
    data.call(&["counter", "add", "--arg-file", file.to_str().unwrap()])
        .exits(0)
        .prints("(8 : nat)\n");
    data.call(&["counter", "add", "(1)", "--arg-hex", "00"])
        .exits(2)
        .says(&["cannot be used with"]);
}

#[test]
fn types_come_from_the_interface_and_names_go_into_the_reply() {
    let data = Data::new();
    data.verb("install")
        .arg("greeter")
        .arg(canister("greeter"))
        .args(["--arg", "(\"Ahoy\")"])
        .run()
        .exits(0);
    data.call(&["greeter", "greet", "(\"you\")"])
        .exits(0)
        .prints("(\"Ahoy, you!\")\n");
    let shapes =
        "(vec { variant { circle = 1.5 }; variant { square = record { side = 3 } } }, opt \"two\")";
    let reply = data.call(&["greeter", "describe", shapes]).exits(0).stdout;
    for words in [
        "count = 2 : nat",
        "first = opt variant { circle = 1.5 : float64 }",
        "title = opt \"two\"",
    ] {
        assert!(reply.contains(words), "no `{words}` in {reply}");
    }
}

#[test]
fn an_argument_that_does_not_fit_names_the_method_and_the_types() {
    let data = Data::with(&["counter"]);
    let before = data.kept();
    data.call(&["counter", "add", "(\"x\")"])
        .fails(2, &["`(\"x\")`", "method `add`", "(nat)"]);
    data.call(&["counter", "add", "(-1)"])
        .fails(2, &["method `add`", "(nat)"]);
    data.call(&["counter", "add"])
        .fails(2, &["method `add`", "(nat)"]);
    data.call(&["counter", "add", "(1, 2)"])
        .fails(2, &["2 values"]);
    data.call(&["counter", "add", "(1"])
        .fails(2, &["`(1` is not Candid"]);
    data.call(&["counter", "add", "--arg-hex", "0g"])
        .fails(2, &["`g` is not a hex digit"]);
    // What an interface can't tell, the tenant does: these bytes are no Candid.
    data.call(&["counter", "add", "--arg-hex", "00"])
        .exits(3)
        .says(&["counter.add: trapped (code 5, canister error)"]);
    assert_eq!(data.kept(), before);
}

#[test]
fn a_trap_tells_where_and_leaves_the_state() {
    let data = Data::with(&["trap"]);
    data.call(&["trap", "succeed"]).exits(0);
    let state = data.call(&["trap", "state"]).exits(0).stdout;
    let said = data.call(&["trap", "trapHalfway"]).exits(3).prints("").says(&["error: trap.trapHalfway: trapped (code 5, canister error): stopped half-way, on purpose"]).stderr;
    let backtrace: Vec<&str> = said.lines().skip(1).collect();
    assert!(
        backtrace.iter().any(|frame| frame.ends_with("trapHalfway")),
        "{said}"
    );
    data.call(&["trap", "divideByZero", "(1)"])
        .exits(3)
        .says(&["divide", "divideByZero"]);
    data.call(&["trap", "outOfBounds"])
        .exits(3)
        .says(&["outOfBounds"]);
    data.call(&["trap", "recurseForever"])
        .exits(3)
        .says(&["recursion limit", "depth"]);
    data.call(&["trap", "trapInQuery"]).exits(3);
    assert_eq!(data.call(&["trap", "state"]).exits(0).stdout, state);
}

#[test]
fn a_reject_has_its_code_and_can_t_write_on_the_terminal() {
    let data = Data::with(&["logs"]);
    data.call(&["logs", "reject", "(\"no\\n\\1b[31m\")"]).fails(
        3,
        &["logs.reject: rejected (code 4, canister reject): no␊␛[31m"],
    );
}

#[test]
fn the_caller_is_who_is_named() {
    let data = Data::with(&["logs"]);
    data.call(&["logs", "whoami"])
        .exits(0)
        .prints("(principal \"2vxsx-fae\")\n");
    data.call(&["logs", "whoami", "--caller", "aaaaa-aa"])
        .exits(0)
        .prints("(principal \"aaaaa-aa\")\n");
    data.call(&["logs", "whoami", "--caller", "nobody"])
        .exits(2)
        .says(&["2vxsx-fae"]);
}

#[test]
fn a_reply_that_is_no_candid_is_said_to_be_none() {
    let data = Data::new();
    data.verb("install")
        .arg("counter32")
        .arg(crate::support::wat("counter32"))
        .args(["--arg-hex", ""])
        .run()
        .exits(0);
    data.call(&["counter32", "inc", "--arg-hex", ""])
        .fails(1, &["8 bytes is not Candid", "--output hex"]);
    data.call(&["counter32", "inc", "--arg-hex", "", "--output", "hex"])
        .exits(0)
        .prints("0200000000000000\n");
}
