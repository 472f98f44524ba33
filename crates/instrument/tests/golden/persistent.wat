(module
  (type (;0;) (func))
  (type (;1;) (func))
  (table (;0;) 1 funcref)
  (memory (;0;) i64 1 2)
  (global (;0;) i32 i32.const 1)
  (global (;1;) (mut i64) i64.const 0)
  (export "lazaret:global:0" (global 1))
  (export "lazaret:init" (func $lazaret:init))
  (export "lazaret:start" (func $start))
  (export "lazaret:memory" (memory 0))
  (elem (;0;) (i32.const 0) func $start)
  (func $start (;0;) (type 0)
    i64.const 0
    i32.const 0
    i32.const 0
    memory.init 2
    i64.const 0
    i32.const 7
    i64.const 3
    memory.fill
    i64.const 1
    global.get 1
    i64.store offset=16
  )
  (func $lazaret:init (;1;) (type 1)
    i64.const 8
    i32.const 0
    i32.const 6
    memory.init 0
  )
  (data (;0;) "active")
  (data (;1;) "passive")
  (data (;2;) "")
)
