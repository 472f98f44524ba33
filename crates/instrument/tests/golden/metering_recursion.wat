(module $control
  (type (;0;) (func (param i32) (result i32)))
  (type (;1;) (func (param i32) (result i32 i32)))
  (type (;2;) (func (result i32 i32)))
  (type (;3;) (func (result i32 i32)))
  (global (;0;) (mut i64) i64.const 0)
  (global (;1;) (mut i32) i32.const 0)
  (global (;2;) (mut i32) i32.const 0)
  (export "main" (func $main))
  (export "lazaret:fuel" (global 0))
  (export "lazaret:stop" (global 1))
  (export "lazaret:depth" (global 2))
  (func $leaf (;0;) (type 0) (param i32) (result i32)
    global.get 0
    i64.const 3
    i64.sub
    global.set 0
    local.get 0
    i32.const 1
    i32.add
  )
  (func $main (;1;) (type 1) (param i32) (result i32 i32)
    global.get 0
    i64.const 1
    i64.sub
    global.set 0
    global.get 0
    i64.const 0
    i64.lt_s
    if ;; label = @1
      i32.const 1
      global.set 1
      unreachable
    end
    global.get 2
    i32.const 1
    i32.add
    global.set 2
    global.get 2
    i32.const 1000
    i32.gt_u
    if ;; label = @1
      i32.const 2
      global.set 1
      unreachable
    end
    block (type 3) (result i32 i32) ;; label = @1
      block ;; label = @2
        i32.const 1
        drop
      end
      loop ;; label = @2
        global.get 0
        i64.const 13
        i64.sub
        global.set 0
        global.get 0
        i64.const 0
        i64.lt_s
        if ;; label = @3
          i32.const 1
          global.set 1
          unreachable
        end
        local.get 0
        call $leaf
        local.set 0
        local.get 0
        i32.const 10
        i32.lt_s
        br_if 0 (;@2;)
        global.get 0
        i64.const 3
        i64.sub
        global.set 0
      end
      local.get 0
      if ;; label = @2
        global.get 0
        i64.const 3
        i64.sub
        global.set 0
        i32.const 1
        i32.const 2
        br 1 (;@1;)
      end
      global.get 0
      i64.const 2
      i64.sub
      global.set 0
      i32.const 3
      i32.const 4
    end
    global.get 2
    i32.const 1
    i32.sub
    global.set 2
  )
  (func $tail (;2;) (type 2) (result i32 i32)
    global.get 0
    i64.const 12
    i64.sub
    global.set 0
    global.get 0
    i64.const 0
    i64.lt_s
    if ;; label = @1
      i32.const 1
      global.set 1
      unreachable
    end
    global.get 2
    i32.const 1
    i32.add
    global.set 2
    global.get 2
    i32.const 1000
    i32.gt_u
    if ;; label = @1
      i32.const 2
      global.set 1
      unreachable
    end
    block (type 2) (result i32 i32) ;; label = @1
      i32.const 0
      call $leaf
      drop
      i32.const 5
      global.get 2
      i32.const 1
      i32.sub
      global.set 2
      return_call $main
    end
    global.get 2
    i32.const 1
    i32.sub
    global.set 2
  )
)
