//! m
mod canister_harness;
use canister_harness::*;
use std::time::Instant;
const EMPTY: &str = r#"(module (import "ic0" "msg_reply" (func $reply)) (memory i64 64) (global (mut i64) (i64.const 0)) (global (mut i64) (i64.const 0))
 (func (export "canister_query m") (call $reply)))"#;
#[test]
fn measure() {
    use lazaret_wire::codec::Message;
    for fresh in [false, true] {
        let mut t = load(EMPTY, setup(), vec![], fresh).unwrap();
        t.install();
        let call = lazaret_wire::message::Call { entry: lazaret_wire::message::Entry::Query, method: "m".into(), sizes: t.sizes, globals: t.globals.clone(), ..t.next.clone() };
        let mut bytes = Vec::new();
        lazaret_wire::message::ToWorker::Call(call).to_bytes(&mut bytes).unwrap();
        let mut out = Vec::new();
        for _ in 0..3 {
            let n = 200_000;
            let (mut a, mut b) = (0u128, 0u128);
            let start = Instant::now();
            for i in 0..n {
                let s = Instant::now();
                t.shared.put_request(&bytes).unwrap();
                let mut buf = Vec::new();
                t.shared.take_request(&mut buf).unwrap();
                let lazaret_wire::message::ToWorker::Call(call) = lazaret_wire::message::ToWorker::from_bytes(&buf).unwrap() else { panic!() };
                let m = Instant::now();
                let done = t.canister.call(call, &mut t.exchange);
                let e = Instant::now();
                lazaret_wire::message::FromWorker::Done(done).to_bytes(&mut out).unwrap();
                t.shared.put_answer(&out).unwrap();
                b += (e - m).as_nanos(); a += (m - s).as_nanos(); let _ = i;
            }
            println!("fresh={fresh}: whole {} ns, decode {} ns, call {} ns", start.elapsed().as_nanos() / n, a / n, b / n);
        }
    }
    // First write to a closed chunk.
    let w = r#"(module (memory i64 4096) (func (export "canister_update m") (local i64) (loop (i64.store (local.get 0) (i64.const 1)) (local.set 0 (i64.add (local.get 0) (i64.const 2097152))) (br_if 0 (i64.lt_u (local.get 0) (i64.const 268435456))))))"#;
    let mut s = setup(); s.heap_limit = 256 << 20; s.sizes.heap = 256 << 20;
    let mut t = load(w, s, vec![], false).unwrap();
    for _ in 0..3 {
        let s = Instant::now(); t.update("m", b""); println!("128 chunks entered: {:?} each", s.elapsed() / 128);
        let s = Instant::now(); t.update("m", b""); println!("128 chunks again: {:?} each", s.elapsed() / 128);
        t.next.close_heap = (0..128).collect(); let s = Instant::now(); t.query("none", b""); println!("close all: {:?}", s.elapsed()); t.next.close_heap.clear();
    }
    // Frames: many values alive across a call.
    let variants = [("one unit, values shared by GVN", 0), ("64 slots i64 locals", 1), ("v128 gvn", 2)];
    for (name, v) in variants {
        let mut pre = String::new(); let mut post = String::new(); let mut locals = String::new();
        match v {
            0 => { // v_k = (x * y_k) computed before and after the call
                let mut k = 0; let mut n = 12;
                while n + 12 < 4090 { let c = 1000003u64 * (k + 7); pre += &format!("(local.set 1 (i64.add (local.get 1) (i64.rotl (i64.mul (local.get 0) (i64.const {c})) (local.get 0))))"); post += &format!("(local.set 1 (i64.xor (local.get 1) (i64.rotl (i64.mul (local.get 0) (i64.const {c})) (local.get 0))))"); n += 16; k += 1; }
                locals += "(local i64)";
            }
            1 => { locals += &"(local i64)".repeat(60); for l in 1..60 { pre += &format!("(local.set {l} (i64.mul (local.get {}) (i64.rotl (local.get 0) (i64.const {l}))))", l - 1); } for l in 1..60 { post += &format!("(local.set 0 (i64.xor (local.get 0) (local.get {l})))"); } }
            _ => { let mut n = 12; let mut k = 1u64;
                while n + 18 < 4090 { let e = format!("(i64x2.mul (i64x2.splat (local.get 0)) (i64x2.splat (i64.rotl (local.get 0) (i64.const {}))))", k % 64); let e = format!("(i64x2.add {e} (v128.const i64x2 {k} {}))", k*77); pre += &format!("(local.set 1 (v128.xor (local.get 1) {e}))"); post += &format!("(local.set 1 (i64x2.sub (local.get 1) {e}))"); n += 22; k += 1; }
                locals += "(local v128)"; }
        }
        let acc = if v == 1 { "(i64.store (i64.const 0) (local.get 0))" } else if v == 0 { "(i64.store (i64.const 0) (local.get 1))" } else { "(v128.store (i64.const 0) (local.get 1))" };
        let text = format!(r#"(module (memory i64 1) (func $deep (param i64) {locals} {pre} (call $deep (i64.add (local.get 0) (i64.const 1))) {post} {acc}) (func (export "canister_update m") (call $deep (i64.const 3))))"#);
        let out = with_worker_stack(move || {
            let rss = || { let s = std::fs::read_to_string("/proc/self/status").unwrap(); s.lines().find(|l| l.starts_with("VmRSS")).unwrap().split_whitespace().nth(1).unwrap().parse::<i64>().unwrap() };
            let mut t = tenant(&text);
            let before = rss();
            let o = t.update("m", b"");
            let used = rss() - before;
            let k = match o { lazaret_wire::message::Outcome::Trap(t) => format!("{:?}", t.kind), o => format!("{o:?}") };
            (k, used)
        });
        println!("{name}: {} with about {} KiB of stack, {} B a unit", out.0, out.1, out.1 * 1024 / 10_000);
    }
}
