;; call add 4095
;; call lanes 8190
;; call floats 3.0 0.0
(module
    (memory (export "memory") 1)
    (data (i32.const 0) "0123456789abcdef0123456789abcdef")
    (func (export "add") (param i32) (result v128)
        (v128.store (local.get 0) (i8x16.add (v128.load (i32.const 0)) (v128.load (i32.const 1))))
        (v128.load (local.get 0)))
    (func (export "lanes") (param i32) (result i32) (local v128)
        (local.set 1 (v128.load (i32.const 3)))
        (v128.store64_lane 1 (local.get 0) (local.get 1))
        (v128.store8_lane 3 (i32.const 20000) (local.get 1))
        (i32x4.extract_lane 2 (i8x16.shuffle 0 17 2 19 4 21 6 23 8 25 10 27 12 29 14 31
            (local.get 1) (v128.load (local.get 0)))))
    (func (export "floats") (param f64 f64) (result v128 f64 f64)
        (f64x2.div (f64x2.splat (local.get 0)) (f64x2.splat (local.get 1)))
        (f64.div (local.get 1) (local.get 1))
        (f64.sqrt (local.get 0))))
