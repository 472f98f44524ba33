;; call deep 0
;; call deep 1
;; call deep 2
;; call deep 3
;; call fib 15
;; call dead 1
;; call dead 0
(module
    (memory (export "memory") 1)
    (func $id (param i32) (result i32) (local.get 0))
    (func (export "deep") (param i32) (result i32)
        (loop (result i32)
            (block
                (if (i32.eqz (local.get 0)) (then
                    (block (block (return (call $id (i32.const 1)))))))
                (br_if 0 (i32.eq (local.get 0) (i32.const 1)))
                (if (i32.eq (local.get 0) (i32.const 2)) (then (br 3 (i32.const 2)))))
            (i32.const 9) (i32.const 3)
            (return)))
    (func $fib (export "fib") (param i32) (result i32)
        (if (result i32) (i32.lt_s (local.get 0) (i32.const 2))
            (then (local.get 0))
            (else (i32.add (call $fib (i32.sub (local.get 0) (i32.const 1)))
                (call $fib (i32.sub (local.get 0) (i32.const 2)))))))
    (func (export "dead") (param i32) (result i32)
        (if (local.get 0)
            (then (return (i32.const 1)) (loop (br 0)) (block (br 0) (drop (call $id))))
            (else (block (br 0) (unreachable) (block (br_if 0 (i32.const 1)) (return (i32.const 5))))))
        (br 0 (i32.const 2))
        (i32.add)
        (call $id)))
