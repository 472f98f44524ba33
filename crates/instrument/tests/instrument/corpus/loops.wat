;; call sum 1000
;; call sum 0
;; call collatz 27L
;; call primes 200
(module
    (memory (export "memory") 1)
    (func (export "sum") (param i32) (result i32) (local i32)
        (block $out (loop $l
            (br_if $out (i32.eqz (local.get 0)))
            (local.set 1 (i32.add (local.get 1) (local.get 0)))
            (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
            (br $l)))
        (local.get 1))
    (func (export "collatz") (param i64) (result i64) (local i64)
        (loop $l
            (if (i64.ne (local.get 0) (i64.const 1))
                (then
                    (local.set 1 (i64.add (local.get 1) (i64.const 1)))
                    (if (i64.eqz (i64.rem_u (local.get 0) (i64.const 2)))
                        (then (local.set 0 (i64.div_u (local.get 0) (i64.const 2))))
                        (else (local.set 0
                            (i64.add (i64.mul (local.get 0) (i64.const 3)) (i64.const 1)))))
                    (br $l))))
        (local.get 1))
    (func (export "primes") (param i32) (result i32) (local i32 i32 i32)
        (local.set 1 (i32.const 2))
        (loop $next
            (if (i32.eqz (i32.load8_u (local.get 1)))
                (then
                    (local.set 3 (i32.add (local.get 3) (i32.const 1)))
                    (local.set 2 (i32.mul (local.get 1) (local.get 1)))
                    (block $done (loop $mark
                        (br_if $done (i32.ge_u (local.get 2) (local.get 0)))
                        (i32.store8 (local.get 2) (i32.const 1))
                        (local.set 2 (i32.add (local.get 2) (local.get 1)))
                        (br $mark)))))
            (local.set 1 (i32.add (local.get 1) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get 1) (local.get 0))))
        (local.get 3)))
